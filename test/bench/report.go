package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// report is what a run has found out.
type report struct {
	settings
	machine [][2]string
	missing []string // packages that would add contenders
	targets []target
	details []details
	tables  []table
	growths []growth
	notes   []string
	took    time.Duration
}

// target is a measured value, and what it has to be.
type target struct {
	what, against string
	got           spread
	unit          string // empty: it is a ratio
	limit         float64
	atMost        bool   // otherwise at least
	then          string // what is asked for next
	limitNote     string
}

// met tells whether the median keeps the target.
func (t target) met() bool {
	if t.atMost {
		return t.got.median <= t.limit
	}
	return t.got.median >= t.limit
}

func (r *report) add(t target) { r.targets = append(r.targets, t) }

func (r *report) atLeast(what, against string, got spread, limit float64) {
	r.add(target{what: what, against: against, got: got, limit: limit})
}

func (r *report) atMost(what, against string, got spread, limit float64, unit string) {
	r.add(target{what: what, against: against, got: got, limit: limit, unit: unit, atMost: true})
}

// note adds to what is told of how it was measured.
func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// details are contenders that were driven in turn.
type details struct {
	title      string
	contenders []contender
	all        []series
	baseline   int // what the ratios are to; negative: there are none
}

func (r *report) addDetails(title string, contenders []contender, all []series, baseline int) {
	r.details = append(r.details, details{title, contenders, all, baseline})
}

// table is one that a section has made up itself.
type table struct {
	title  string
	header []string
	rows   [][]string
}

func (r *report) addTable(title string, header []string, rows [][]string) {
	r.tables = append(r.tables, table{title, header, rows})
}

// markdown returns the whole report.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What the sidecar costs\n\nMade by `go run ./test/bench`")
	switch {
	case r.quick:
		b.WriteString(" with `-quick`: a smoke test, whose numbers mean little")
	case r.run.String() != "":
		fmt.Fprintf(&b, " with `-run '%s'`", r.run)
	}
	fmt.Fprintf(&b, ", in %s.\n\n", r.took.Round(time.Second))
	for _, m := range r.machine {
		fmt.Fprintf(&b, "* %s: %s\n", m[0], m[1])
	}
	for _, m := range r.missing {
		fmt.Fprintf(&b, "* left out, as it is not installed: %s\n", m)
	}

	if len(r.targets) > 0 {
		b.WriteString("\n## Targets\n\n")
		rows := make([][]string, len(r.targets))
		for i, t := range r.targets {
			met := "**no**"
			if t.met() {
				met = "yes"
			}
			rows[i] = []string{t.what, t.against, spreadText(t.got, t.unit), limitText(t), met}
		}
		writeTable(&b, []string{"what", "against", "ratio or value (lowest to highest)", "target", "met"}, rows)
	}
	for _, d := range r.details {
		fmt.Fprintf(&b, "\n## %s\n\n", d.title)
		d.write(&b)
	}
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n\n", t.title)
		writeTable(&b, t.header, t.rows)
	}
	b.WriteString("\n## How it was measured\n\n")
	for _, note := range append(r.method(), r.notes...) {
		fmt.Fprintf(&b, "* %s\n", note)
	}
	return b.String()
}

// write writes what was found out about each contender.
func (d details) write(b *strings.Builder) {
	header := []string{"contender", "ratio", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/request", "RSS MB"}
	var rows [][]string
	for i, c := range d.contenders {
		s := d.all[i]
		ratio := "–"
		if d.baseline >= 0 {
			ratio = ratioText(speedRatio(s, d.all[d.baseline]))
		}
		p999 := "–"
		if every(s, func(s sample) bool { return s.knowsTail }) {
			p999 = fmt.Sprintf("%.2f", over(s, func(s sample) float64 { return milliseconds(s.p999) }))
		}
		rows = append(rows, []string{
			c.name, ratio,
			number(over(s, func(s sample) float64 { return s.perSecond })),
			fmt.Sprintf("%.2f", over(s, func(s sample) float64 { return milliseconds(s.p50) })),
			fmt.Sprintf("%.2f", over(s, func(s sample) float64 { return milliseconds(s.p99) })),
			p999, cpuText(s), rssText(s),
		})
	}
	if d.baseline >= 0 {
		fmt.Fprintf(b, "Ratios are to %s.\n\n", d.contenders[d.baseline].name)
	}
	writeTable(b, header, rows)
}

func writeTable(b *strings.Builder, header []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
}

// spreadText returns a median with the lowest and the highest value.
func spreadText(s spread, unit string) string {
	f := valueText
	if unit == "" {
		f = ratioDigits
	}
	text := f(s.median)
	if s.lowest != s.highest {
		text += fmt.Sprintf(" (%s to %s)", f(s.lowest), f(s.highest))
	}
	if unit != "" {
		text += " " + unit
	}
	return text
}

func limitText(t target) string {
	sign := "≥"
	if t.atMost {
		sign = "≤"
	}
	limit := ratioDigits(t.limit)
	if t.limit == math.Trunc(t.limit) {
		limit = fmt.Sprint(t.limit)
	}
	text := sign + " " + limit
	if t.unit != "" {
		text += " " + t.unit
	}
	return text + t.limitNote + t.then
}

func ratioText(s spread) string { return spreadText(s, "") }

// ratioDigits returns a ratio with as many digits as mean something.
func ratioDigits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v < 0.095:
		return fmt.Sprintf("%.2g", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func valueText(v float64) string {
	if math.Abs(v) >= 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// number returns a value such as people read it: 12,300.
func number(v float64) string {
	if math.Abs(v) < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return thousands(int(math.Round(v)))
}

// thousands returns n with its digits in groups.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func every(s series, is func(sample) bool) bool {
	for _, one := range s {
		if !is(one) {
			return false
		}
	}
	return true
}

func knowsUsage(s sample) bool { return s.knowsUsage }

func cpuText(s series) string {
	if !every(s, knowsUsage) {
		return "n/a"
	}
	return number(over(s, func(s sample) float64 { return float64(s.cpu) / float64(time.Microsecond) }))
}

func rssText(s series) string {
	if !every(s, knowsUsage) {
		return "n/a"
	}
	return number(over(s, func(s sample) float64 { return float64(s.rss) / megabyte }))
}
