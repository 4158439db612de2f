package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// report is what came of a run.
type report struct {
	set      settings
	series   []*series
	verdicts []verdict // of each
	missed   int       // samples
	left     int       // requests that nobody had time for
	results  *results
	trouble  []string // what else is wrong
}

// grown returns the names of what grew.
func (r *report) grown() (names []string) {
	for i, s := range r.series {
		if r.verdicts[i].grows {
			names = append(names, s.name)
		}
	}
	return names
}

// wrong says what is wrong with the sidecar.
func (r *report) wrong() []string {
	wrong := slices.Clone(r.trouble)
	for _, name := range r.grown() {
		wrong = append(wrong, name+" grows")
	}
	requests, lost, bad := r.results.totals()
	if bad > 0 {
		wrong = append(wrong, fmt.Sprintf("%d answers are not what they should be", bad))
	}
	if lost*100 > requests {
		wrong = append(wrong, fmt.Sprintf("%d of %d requests were lost", lost, requests))
	}
	return wrong
}

// columns is how wide a chart is: no wider than there are samples.
func (s settings) columns() int { return min(60, int(s.duration/time.Second)) }

// print prints the charts and the table.
func (r *report) print(out io.Writer) {
	columns := r.set.columns()
	warm := int(time.Duration(columns) * r.set.warmUp() / r.set.duration)
	fmt.Fprintf(out, "\n%-20s%s%s\n", "", "warm-up"+strings.Repeat(" ", max(0, warm-7)), "| steady state")
	for i, s := range r.series {
		v := r.verdicts[i]
		word := "flat"
		if v.grows {
			word = "GROWS"
		}
		values := make([]float64, len(s.points))
		for i, p := range s.points {
			values[i] = p.value
		}
		chart := []rune(sparkline(s.points, r.set.duration, columns, v.allowed))
		fmt.Fprintf(out, "%-20s%s|%s  %s\n", s.name, string(chart[:warm]), string(chart[warm:]), word)
		fmt.Fprintf(out, "%-20smin %s, median %s, max %s; thirds %s to %s, slope %s; allowed %s\n", "",
			s.format(slices.Min(values)), s.format(median(values)), s.format(slices.Max(values)),
			s.format(v.first), s.format(v.last), s.format(v.slope), s.format(v.allowed))
	}
	if r.missed > 0 {
		fmt.Fprintf(out, "%d samples are missing\n", r.missed)
	}
	if r.left > 0 {
		fmt.Fprintf(out, "%d times everybody was waiting for an answer when it was time for the next request\n", r.left)
	}
	fmt.Fprintln(out)
	r.results.print(out)
}

// format writes a value of the metric.
func (m metric) format(value float64) string {
	if m.bytes {
		return fmt.Sprintf("%.1f MiB", value/(1<<20))
	}
	return fmt.Sprintf("%.0f", value)
}

// sparkline draws points over duration, in columns: the highest is a full block, and so is
// what is span above the lowest if that is higher, so that what is flat looks flat.
// Where there is no sample there is a blank.
func sparkline(points []point, duration time.Duration, columns int, span float64) string {
	blocks := []rune("▁▂▃▄▅▆▇█")
	cells := make([][]float64, columns)
	lowest, highest := points[0].value, points[0].value
	for _, p := range points {
		i := min(int(time.Duration(columns)*p.at/duration), columns-1)
		cells[i] = append(cells[i], p.value)
		lowest, highest = min(lowest, p.value), max(highest, p.value)
	}
	highest = max(highest, lowest+span)
	var line strings.Builder
	for _, cell := range cells {
		if len(cell) == 0 {
			line.WriteByte(' ')
			continue
		}
		height := 0
		if highest > lowest {
			height = int((median(cell) - lowest) / (highest - lowest) * float64(len(blocks)))
		}
		line.WriteRune(blocks[min(height, len(blocks)-1)])
	}
	return line.String()
}
