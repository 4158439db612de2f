package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// seconds returns d for people.
func seconds(d time.Duration) string {
	switch {
	case d == never:
		return "never"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	default:
		return fmt.Sprintf("%.1f min", d.Minutes())
	}
}

// number returns n with its thousands apart.
func number(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// row is a line of a table, with a cell for each run.
type row struct {
	title string
	cells []string
}

// table returns what the runs are compared by.
func table(runs []*run) (rows []row) {
	add := func(title string, of func(r *run) string) {
		cells := make([]string, len(runs))
		for i, r := range runs {
			cells[i] = of(r)
		}
		rows = append(rows, row{title, cells})
	}
	count := func(title string, of func(r *run) int) {
		add(title, func(r *run) string { return number(of(r)) })
	}
	answered := func(title string, of func(r *run) figures) {
		add(title+": answered, p50 / p99", func(r *run) string {
			f := of(r)
			return seconds(f.p50) + " / " + seconds(f.p99)
		})
	}

	count("calls", func(r *run) int { return len(r.calls) })
	count("executions", func(r *run) int { return len(r.effects) })
	count("executed more than once", (*run).duplicates)
	count("requests beyond the platform's limit", func(r *run) int { return r.excess })
	count("executions in the busiest minute", (*run).busiest)
	count("most executions at once", func(r *run) int { n, _ := r.most(); return n })
	count("executions begun beside 50 others", func(r *run) int { _, n := r.most(); return n })
	group := func(title string, of func(r *run) figures) {
		count(title+": 429s seen", func(r *run) int { return of(r).limited })
		count(title+": answers that came too late", func(r *run) int { return of(r).timeouts })
		count(title+": other errors", func(r *run) int { return of(r).errors })
		add(title+": calls given up", func(r *run) string { f := of(r); return fmt.Sprintf("%s of %s", number(f.gaveUp), number(f.calls)) })
		answered(title, of)
	}
	add("handed over, p99 until it was", func(r *run) string {
		n, p99 := r.handedOver()
		if n == 0 {
			return "none"
		}
		return number(n) + ", " + fmt.Sprintf("%d ms", p99.Milliseconds())
	})
	for _, k := range kinds {
		group(k.title, func(r *run) figures { return r.ofKind(k) })
	}
	group("all but the neighbour", (*run).others)
	for c := range conditions {
		answered("screen pops "+c.String(), func(r *run) figures { return r.quiet(c) })
	}
	for _, k := range []*kind{screenPop, script, noisy} {
		add(k.title+": answered within 16 s at noisy times", func(r *run) string {
			return fmt.Sprintf("%.1f %%", 100*r.within(k, screenPop.patience))
		})
	}
	return rows
}

// print prints what the runs are compared by, and each hour by hour.
func (r report) print(out io.Writer) {
	line := func(title string, cells []string) {
		fmt.Fprintf(out, "%-62s", title)
		for _, cell := range cells {
			fmt.Fprintf(out, " %18s", cell)
		}
		fmt.Fprintln(out)
	}
	var titles []string
	for _, run := range r.runs {
		titles = append(titles, run.mode.String())
	}
	line("", titles)
	for _, row := range table(r.runs) {
		line(row.title, row.cells)
	}
	fmt.Fprintln(out, "\nThe neighbour's calls are left out in what follows, but for executions and excess.")
	for _, run := range r.runs {
		fmt.Fprintf(out, "\n%s (played in %v)\n", run.mode, run.real.Round(100*time.Millisecond))
		fmt.Fprintf(out, "%-6s %7s %7s %7s %7s %7s %7s %9s %9s %9s %9s\n", "from", "calls", "ran", "excess", "429s", "errors", "givenup", "p50", "p99", "pops p50", "pops p99")
		for _, h := range run.hours(r.part()) {
			fmt.Fprintf(out, "%-6s %7d %7d %7d %7d %7d %7d %9s %9s %9s %9s\n", timeOfDay(h.at), h.calls, h.executions, h.excess,
				h.limited, h.timeouts+h.errors, h.gaveUp, seconds(h.p50), seconds(h.p99), seconds(h.pops.p50), seconds(h.pops.p99))
		}
	}
	for _, m := range measures {
		fmt.Fprintf(out, "\n%s, %s to %s, each mark %d minutes\n", m.title, timeOfDay(r.runs[0].scenario.opens),
			timeOfDay(r.runs[0].scenario.opens+r.runs[0].scenario.length), r.part()/time.Minute)
		for _, run := range r.runs {
			fmt.Fprintf(out, "%12s  %s\n", run.mode, m.sparks(run.hours(r.part())))
		}
	}
}

// report is what is told of runs of the same scenario.
type report struct{ runs []*run }

// part is how long the parts are that the runs are told by.
func (r report) part() time.Duration {
	if r.runs[0].scenario.length <= time.Hour {
		return 5 * time.Minute
	}
	return time.Hour
}

func timeOfDay(t time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(t.Hours()), int(t.Minutes())%60)
}

// measure is one that the runs are drawn by, hour by hour.
type measure struct {
	title string
	of    func(h hour) float64 // infinite: never
	least float64              // where the scale begins, which is logarithmic
	ticks []float64
	unit  string
}

var measures = []measure{
	{"429s seen by callers, the noisy neighbour's left out", func(h hour) float64 { return float64(h.limited) }, 1, []float64{1, 10, 100, 1000, 10000}, ""},
	{"Calls given up, the noisy neighbour's left out", func(h hour) float64 { return float64(h.gaveUp) }, 1, []float64{1, 10, 100, 1000, 10000}, ""},
	{"Screen pops: 99 % answered within", func(h hour) float64 { return scaled(h.pops.p99) }, 0.5, []float64{0.5, 1, 2, 5, 10, 20, 50}, " s"},
	{"Hourly job: half answered within", func(h hour) float64 { return scaled(h.jobs.p50) }, 0.5, []float64{0.5, 1, 2, 5, 10, 20, 50, 100, 200}, " s"},
}

func scaled(d time.Duration) float64 {
	if d == never {
		return math.Inf(1)
	}
	return d.Seconds()
}

// height returns how high v stands on the measure's scale, from 0 to 1.
func (m measure) height(v float64) float64 {
	if v < m.least {
		return 0
	}
	// A tenth is left for what is least, and one for what is never.
	most := m.ticks[len(m.ticks)-1]
	return min(1, 0.1+0.8*math.Log(v/m.least)/math.Log(most/m.least))
}

// sparks returns a line with a mark for each hour: a dot for nothing, a cross for
// never.
func (m measure) sparks(hours []hour) string {
	marks := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, h := range hours {
		switch v := m.of(h); {
		case math.IsInf(v, 1):
			b.WriteRune('✕')
		case v < m.least:
			b.WriteRune('·')
		default:
			b.WriteRune(marks[min(len(marks)-1, int(m.height(v)*float64(len(marks))))])
		}
	}
	return b.String()
}
