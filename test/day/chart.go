package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The chart's measures, in pixels.
const (
	chartWidth  = 960
	chartMargin = 24
	axisWidth   = 56
	panelHeight = 130
)

// The chart's colours. They are told apart by those who see no red or green.
const (
	inkColor   = "#1f2933"
	faintColor = "#6b7785"
	gridColor  = "#dde2e7"
)

// colors are those of the modes.
var colors = map[mode]string{direct: "#9aa5b1", unpaced: "#e08a1e", paced: "#2b7bba"}

// canvas is an SVG that grows downwards.
type canvas struct {
	strings.Builder
	y float64 // where it goes on
}

func (c *canvas) text(x, y float64, style, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, style, html.EscapeString(text))
}

// chart returns an SVG of the measures, hour by hour. It is on white, so that it can
// be read on any page.
func (r report) chart() string {
	var c canvas
	c.y = chartMargin + 6
	x := float64(chartMargin)
	for _, run := range r.runs {
		fmt.Fprintf(&c, `<rect x="%.1f" y="%.1f" width="14" height="14" fill="%s"/>`+"\n", x, c.y-12, colors[run.mode])
		c.text(x+20, c.y, fmt.Sprintf(`fill="%s"`, inkColor), legend[run.mode])
		x += 300
	}
	for _, m := range measures {
		c.panel(m, r)
	}
	height := c.y + chartMargin/2
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%.0[2]f" viewBox="0 0 %[1]d %.0[2]f" font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="white"/>
%[3]s</svg>
`, chartWidth, height, c.String())
}

// legend names the modes.
var legend = map[mode]string{
	direct:  "without the sidecar",
	unpaced: "the sidecar, without pacing",
	paced:   "the sidecar, with pacing",
}

// panel draws one measure of all runs.
func (c *canvas) panel(m measure, r report) {
	c.y += 34
	c.text(chartMargin, c.y, fmt.Sprintf(`font-size="15" font-weight="bold" fill="%s"`, inkColor), m.title)
	c.y += 12
	const left, right = chartMargin + axisWidth, chartWidth - chartMargin
	top, bottom := c.y, c.y+panelHeight
	y := func(v float64) float64 { return bottom - panelHeight*m.height(v) }
	for _, tick := range m.ticks {
		fmt.Fprintf(c, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>`+"\n", left, y(tick), right, y(tick), gridColor)
		c.text(left-6, y(tick)+4, fmt.Sprintf(`text-anchor="end" font-size="11" fill="%s"`, faintColor), fmt.Sprintf("%g%s", tick, m.unit))
	}
	fmt.Fprintf(c, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>`+"\n", left, bottom, right, bottom, faintColor)
	hasNever := false
	for i, run := range r.runs {
		hours := run.hours(r.part())
		width := float64(right-left) / float64(len(hours))
		bar := width * 0.8 / float64(len(r.runs))
		for n, h := range hours {
			v := m.of(h)
			hasNever = hasNever || math.IsInf(v, 1)
			x := float64(left) + width*(float64(n)+0.1) + bar*float64(i)
			if v >= m.least {
				fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y(v), bar, bottom-y(v), colors[run.mode])
			}
			if i == 0 && (len(hours) <= 12 || n%2 == 0) {
				c.text(float64(left)+width*float64(n), bottom+15, fmt.Sprintf(`font-size="11" fill="%s"`, faintColor), timeOfDay(h.at))
			}
		}
	}
	if hasNever {
		c.text(left-6, top+4, fmt.Sprintf(`text-anchor="end" font-size="11" fill="%s"`, faintColor), "never")
	}
	c.y = bottom + 18
}
