package caddymodule

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// printer writes to people. What it is told comes from callers and upstreams in
// part, and is made harmless.
type printer struct {
	w        io.Writer
	terminal bool
	width    int // of the terminal in columns; 0: not restricted
	color    bool
}

func newPrinter(cmd *cobra.Command) *printer {
	p := &printer{w: cmd.OutOrStdout()}
	if f, ok := p.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal = true
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			p.width = width
		}
		p.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return p
}

// line prints a line of its own making with the args made harmless.
func (p *printer) line(format string, args ...any) {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			args[i] = harmless(a)
		case error:
			args[i] = harmless(a.Error())
		}
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// json prints JSON as it came.
func (p *printer) json(raw []byte) error {
	text := string(raw)
	if p.terminal {
		text = harmlessJSON(text)
	}
	_, err := fmt.Fprintln(p.w, strings.TrimRight(text, "\n"))
	return err
}

// The colors of a terminal.
const (
	colorNone   = ""
	colorRed    = "31"
	colorGreen  = "32"
	colorYellow = "33"
	colorFaint  = "2"
)

func (p *printer) paint(color, text string) string {
	if !p.color || color == colorNone {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// table is printed in columns. Its last column is shortened where the terminal
// is too narrow, so that what precedes it is not wrapped.
type table struct {
	head   []string
	rows   [][]string
	indent string
	paint  func(column int, cell string) (color string) // nil: nothing is painted
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

const (
	columnGap  = 2
	leastShown = 24 // columns that are left to the last one, on however narrow a terminal
)

func (p *printer) table(t *table) {
	all := append([][]string{t.head}, t.rows...)
	widths := make([]int, len(t.head))
	for _, row := range all {
		for i := range row {
			row[i] = harmless(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	last := len(widths) - 1
	if p.width > 0 {
		left := p.width - len(t.indent)
		for _, w := range widths[:last] {
			left -= w + columnGap
		}
		widths[last] = min(widths[last], max(left, leastShown))
	}
	for r, row := range all {
		var b strings.Builder
		b.WriteString(t.indent)
		for i, cell := range row {
			color := colorNone
			switch {
			case r == 0:
				color = colorFaint
			case t.paint != nil:
				color = t.paint(i, cell)
			}
			if i == last {
				b.WriteString(p.paint(color, shorten(cell, widths[last])))
				break
			}
			b.WriteString(p.paint(color, cell))
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+columnGap))
		}
		fmt.Fprintln(p.w, strings.TrimRight(b.String(), " "))
	}
}

// shorten cuts out the middle of s if it has more than width characters: an
// action's name differs in its end.
func shorten(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	head := (width - 1) / 2
	tail := width - 1 - head
	return string(runes[:head]) + "…" + string(runes[len(runes)-tail:])
}

// harmless makes s a text of one line that no terminal takes for a command:
// what is not to be printed is written as Go would write it in quotes.
func harmless(s string) string {
	return escapeRunes(s, func(r rune) bool { return !printable(r) }, goEscape)
}

// harmlessText is harmless for a text of several lines.
func harmlessText(s string) string {
	return escapeRunes(s, func(r rune) bool { return r != '\n' && r != '\t' && !printable(r) }, goEscape)
}

// harmlessJSON writes characters that mean something to a terminal as JSON's own
// escapes: the text means the same.
func harmlessJSON(s string) string {
	return escapeRunes(s, func(r rune) bool { return !printable(r) && !strings.ContainsRune("\n\r\t", r) }, func(r rune) string {
		if r > 0xffff {
			r -= 0x10000
			return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
		return fmt.Sprintf(`\u%04x`, r)
	})
}

// printable tells whether r is a character that shows, and in its place: a text
// that turns its direction around can seem to say something else.
func printable(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }

func goEscape(r rune) string {
	quoted := strconv.QuoteRuneToASCII(r)
	return quoted[1 : len(quoted)-1]
}

func escapeRunes(s string, needs func(rune) bool, as func(rune) string) string {
	if !strings.ContainsFunc(s, needs) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // a byte that is no UTF-8 comes as utf8.RuneError
		if needs(r) {
			b.WriteString(as(r))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// ago says how long before now t was, to one unit.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if d := t.Sub(now); d > 0 {
		return "in " + roughly(d)
	}
	return roughly(now.Sub(t)) + " ago"
}

func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// exactly is a time as people read it, with how long ago that was.
func exactly(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05 MST") + " (" + ago(now, t) + ")"
}

// inSeconds is a duration as the API tells it.
func inSeconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// firstWord returns what of s precedes a space: of Caddy's version, the number
// without the checksum.
func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}
