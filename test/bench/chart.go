package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The chart's measures, in pixels.
const (
	chartWidth  = 960
	chartMargin = 24
	labelWidth  = 370 // of what stands left of the bars
	valueWidth  = 150 // of what stands right of them
	barHeight   = 20
	rowHeight   = 38
	axisHeight  = 20
)

// The chart's colours. They are told apart by those who see no red or green.
const (
	inkColor   = "#1f2933"
	faintColor = "#6b7785"
	gridColor  = "#dde2e7"
	metColor   = "#2b7bba"
	unmetColor = "#e08a1e"
)

// canvas is an SVG that grows downwards.
type canvas struct {
	strings.Builder
	y float64 // where it goes on
}

func (c *canvas) text(x, y float64, style, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, style, html.EscapeString(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64, color string, width float64) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"/>`+"\n", x1, y1, x2, y2, color, width)
}

func (c *canvas) heading(text string) {
	c.y += 30
	c.text(chartMargin, c.y, fmt.Sprintf(`font-size="16" font-weight="bold" fill="%s"`, inkColor), text)
	c.y += 8
}

// chart returns an SVG of the ratios with their targets, and of the growth. It
// is on white, so that it can be read on any page.
func (r *report) chart() string {
	var c canvas
	var caddy, tutorial []target
	for _, t := range r.targets {
		switch {
		case t.unit != "":
		case strings.Contains(t.against, "tutorial"):
			tutorial = append(tutorial, t)
		default:
			caddy = append(caddy, t)
		}
	}
	if len(caddy) > 0 {
		c.bars("Calls per second, as a multiple of bare Caddy's", caddy, linearScale(caddy))
	}
	if len(tutorial) > 0 {
		c.bars("Calls per second, as a multiple of the tutorial's program (logarithmic)", tutorial, logScale(tutorial))
	}
	if c.y > 0 {
		c.y += 14
		c.text(chartMargin, c.y, fmt.Sprintf(`font-size="11" fill="%s"`, faintColor),
			"Bar: median of the rounds. Thin line: lowest to highest. Thick mark: target. Blue: met, orange: not met.")
		c.y += 14
	}
	if len(r.growths) > 0 {
		c.growth(r.growths)
	}
	height := c.y + chartMargin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%.0[2]f" viewBox="0 0 %[1]d %.0[2]f" font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="white"/>
%[3]s</svg>
`, chartWidth, height, c.String())
}

// scale maps values to 0…1, and says where lines help to read it.
type scale struct {
	at    func(v float64) float64
	lines []float64
}

func highest(all []target) float64 {
	most := 0.0
	for _, t := range all {
		most = max(most, t.got.highest, t.limit)
	}
	return most
}

func linearScale(all []target) scale {
	most := max(1.5, highest(all)*1.05)
	s := scale{at: func(v float64) float64 { return v / most }}
	for v := 0.0; v <= most; v += 0.5 {
		s.lines = append(s.lines, v)
	}
	return s
}

// logScale begins at 1, which is what everything is compared with.
func logScale(all []target) scale {
	decades := math.Ceil(math.Log10(max(10, highest(all))))
	s := scale{at: func(v float64) float64 { return max(0, math.Log10(max(v, 1e-9))) / decades }}
	for v := 1.0; v <= math.Pow(10, decades); v *= 10 {
		s.lines = append(s.lines, v)
	}
	return s
}

// bars draws one bar for each target: its median, a thin line from the lowest
// to the highest round, and a mark where it has to be.
func (c *canvas) bars(title string, all []target, s scale) {
	c.heading(title)
	const left, width = chartMargin + labelWidth, chartWidth - 2*chartMargin - labelWidth - valueWidth
	x := func(v float64) float64 { return left + width*s.at(v) }
	top, bottom := c.y+6, c.y+6+float64(len(all))*rowHeight
	for _, v := range s.lines {
		c.line(x(v), top, x(v), bottom, gridColor, 1)
		c.text(x(v), bottom+15, fmt.Sprintf(`text-anchor="middle" font-size="11" fill="%s"`, faintColor), fmt.Sprintf("%g", v))
	}
	for i, t := range all {
		y := top + float64(i)*rowHeight + (rowHeight-barHeight)/2
		middle := y + barHeight/2
		color := unmetColor
		if t.met() {
			color = metColor
		}
		c.text(chartMargin, middle-3, fmt.Sprintf(`fill="%s"`, inkColor), plain(t.what))
		c.text(chartMargin, middle+12, fmt.Sprintf(`font-size="11" fill="%s"`, faintColor), "against "+plain(t.against))
		fmt.Fprintf(c, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, x(t.got.median)-left, barHeight, color)
		c.line(x(t.got.lowest), middle, x(t.got.highest), middle, inkColor, 1)
		c.line(x(t.got.lowest), middle-3, x(t.got.lowest), middle+3, inkColor, 1)
		c.line(x(t.got.highest), middle-3, x(t.got.highest), middle+3, inkColor, 1)
		c.line(x(t.limit), y-5, x(t.limit), y+barHeight+5, inkColor, 2.5)
		c.text(chartWidth-chartMargin, middle+5, fmt.Sprintf(`text-anchor="end" fill="%s"`, inkColor),
			fmt.Sprintf("%s, target %s", ratioDigits(t.got.median), ratioDigits(t.limit)))
	}
	c.y = bottom + axisHeight
}

// plain returns text without Markdown's marks.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }

// growth is what a growth table shows, for the chart.
type growth struct {
	name  string
	steps []string
	all   [][]series // for each step, in the order of the contenders that grow
}

func (g *growth) add(step string, all []series) {
	g.steps = append(g.steps, step)
	g.all = append(g.all, all)
}

// perSecond returns the calls per second of one contender at each step.
func (g *growth) perSecond(contender int) []float64 {
	values := make([]float64, len(g.all))
	for i, all := range g.all {
		values[i] = over(all[contender], func(s sample) float64 { return s.perSecond })
	}
	return values
}

// growing is how the contenders of a growth are drawn.
var growing = [...]struct{ name, color, dashes string }{
	growReplay:  {"sidecar, replay", metColor, ""},
	growRespond: {"Caddy respond", metColor, "5 4"},
	growFresh:   {"sidecar, fresh call on disk", unmetColor, ""},
	growProxy:   {"Caddy reverse_proxy", unmetColor, "5 4"},
}

// growth draws the growths beside each other.
func (c *canvas) growth(all []growth) {
	c.heading("Calls per second, as things grow")
	c.y += 18
	x := float64(chartMargin)
	for _, g := range growing {
		fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="2.5" stroke-dasharray="%s"/>`+"\n", x, c.y-4, x+28, c.y-4, g.color, g.dashes)
		c.text(x+34, c.y, fmt.Sprintf(`font-size="12" fill="%s"`, inkColor), g.name)
		x += 225
	}
	c.y += 14
	const gap, height = 60.0, 190.0
	width := (chartWidth - 2*chartMargin - gap*float64(len(all))) / float64(len(all))
	for i, g := range all {
		c.panel(g, chartMargin+gap*0.8+float64(i)*(width+gap), c.y, width, height)
	}
	c.y += height + 40
}

// panel draws one growth.
func (c *canvas) panel(g growth, left, top, width, height float64) {
	most := 0.0
	for i := range growing {
		most = max(most, slices.Max(g.perSecond(i)))
	}
	unit := niceStep(most / 4)
	most = unit * math.Ceil(most/unit)
	bottom := top + height
	y := func(v float64) float64 { return bottom - height*v/most }
	x := func(i int) float64 {
		if len(g.steps) == 1 {
			return left + width/2
		}
		return left + 10 + (width-20)*float64(i)/float64(len(g.steps)-1)
	}
	for v := 0.0; v <= most; v += unit {
		c.line(left, y(v), left+width, y(v), gridColor, 1)
		c.text(left-6, y(v)+4, fmt.Sprintf(`text-anchor="end" font-size="11" fill="%s"`, faintColor), thousands(int(v)))
	}
	for i, step := range g.steps {
		c.text(x(i), bottom+15, fmt.Sprintf(`text-anchor="middle" font-size="11" fill="%s"`, faintColor), step)
	}
	c.text(left+width/2, bottom+33, fmt.Sprintf(`text-anchor="middle" font-size="12" fill="%s"`, inkColor), g.name)
	for i, style := range growing {
		var points []string
		for step, v := range g.perSecond(i) {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(step), y(v)))
			fmt.Fprintf(c, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(step), y(v), style.color)
		}
		fmt.Fprintf(c, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"/>`+"\n",
			strings.Join(points, " "), style.color, style.dashes)
	}
}

// niceStep returns a round number that is not below v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(v, 1))))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}
