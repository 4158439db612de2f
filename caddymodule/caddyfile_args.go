package caddymodule

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// The functions in this file parse the arguments of the option that d is at,
// and complain in its name.

// parseArg parses exactly one argument. It does not repeat what is too much: of
// a password with spaces, that is the rest.
func parseArg(d *caddyfile.Dispenser, target *string) error {
	name := d.Val()
	if !d.NextArg() {
		return d.Errf("%s: an argument is missing", name)
	}
	*target = d.Val()
	if d.NextArg() {
		return d.Errf("%s: it takes one argument; one that has spaces must be in quotes", name)
	}
	return nil
}

// splitBlock gives each option of the block of the directive at d, which has no
// arguments, to parse, which tells whether it is one of its own, and returns the
// directive with all others.
func splitBlock(d *caddyfile.Dispenser, parse func(*caddyfile.Dispenser) (own bool, err error)) (rest *caddyfile.Dispenser, err error) {
	others := []caddyfile.Token{d.Token()}
	var options []caddyfile.Token // in their braces
	for d.NextBlock(0) {
		if options == nil {
			d.Prev()
			options = append(options, d.Token())
			d.Next()
		}
		own, err := parse(d)
		if err != nil {
			return nil, err
		}
		if !own {
			options = append(options, d.NextSegment()...)
		}
	}
	if len(options) > 1 {
		others = append(append(others, options...), d.Token())
	}
	return caddyfile.NewDispenser(others), nil
}

func parseChoice(d *caddyfile.Dispenser, target *string, choices ...string) error {
	name := d.Val()
	if err := parseArg(d, target); err != nil {
		return err
	}
	for _, c := range choices {
		if *target == c {
			return nil
		}
	}
	return d.Errf("%s: %q is none of %s", name, *target, strings.Join(choices, ", "))
}

func parsePositiveDuration(d *caddyfile.Dispenser, target *caddy.Duration) error {
	name := d.Val()
	var arg string
	if err := parseArg(d, &arg); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(arg)
	if err != nil || parsed <= 0 {
		return d.Errf("%s: %q is no positive duration, such as %s", name, arg, 90*time.Second)
	}
	*target = caddy.Duration(parsed)
	return nil
}

func parseCount(d *caddyfile.Dispenser, target *int) error {
	name := d.Val()
	var arg string
	if err := parseArg(d, &arg); err != nil {
		return err
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return d.Errf("%s: %q is no number from 1 on", name, arg)
	}
	*target = n
	return nil
}

// parseSize parses a size in bytes, such as 64MiB.
func parseSize(d *caddyfile.Dispenser, target *int64) error {
	name := d.Val()
	var arg string
	if err := parseArg(d, &arg); err != nil {
		return err
	}
	size, err := humanize.ParseBytes(arg)
	if err != nil || size == 0 || size > math.MaxInt64 {
		return d.Errf("%s: %q is no size, such as 64MiB", name, arg)
	}
	*target = int64(size)
	return nil
}
