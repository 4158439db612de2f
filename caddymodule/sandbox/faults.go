package sandbox

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ParseFault reads "name=probability", as a command line gives it. The name
// may carry an argument of its own ("slow=2s=0.1"); the probability is what
// follows the last "=". The result is an entry of Config.Faults.
func ParseFault(s string) (name string, probability float64, err error) {
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		if _, err := parseSpec(s); err != nil {
			return "", 0, err
		}
		return "", 0, fmt.Errorf("reading fault %q: no probability, as in %s=0.1", s, s)
	}
	name = s[:at]
	if _, err := parseSpec(name); err != nil {
		return "", 0, err
	}
	probability, err = strconv.ParseFloat(s[at+1:], 64)
	if err != nil || !isProbability(probability) {
		return "", 0, fmt.Errorf("reading fault %q: %q is no probability from 0 to 1", s, s[at+1:])
	}
	return name, probability, nil
}

// isProbability is false for NaN.
func isProbability(p float64) bool { return p >= 0 && p <= 1 }

// parseFaults reads a Sandbox-Fault header: name[=arg][; times=n], and more of
// them after commas.
func parseFaults(header string) ([]fault, error) {
	var list []fault
	for element := range strings.SplitSeq(header, ",") {
		spec, params, _ := strings.Cut(element, ";")
		if spec = strings.TrimSpace(spec); spec == "" {
			continue
		}
		f, err := parseSpec(spec)
		if err != nil {
			return nil, err
		}
		if params = strings.TrimSpace(params); params != "" {
			count, ok := strings.CutPrefix(params, "times=")
			if f.times, err = strconv.Atoi(count); !ok || err != nil || f.times < 1 {
				return nil, fmt.Errorf("reading fault %q: %q is not times=<a number from 1>", spec, params)
			}
		}
		list = append(list, f)
	}
	return list, nil
}

// rememberedCalls bounds the calls for which uses of a fault are counted.
const rememberedCalls = 100_000

// faults chooses what goes wrong with a request.
type faults struct {
	seed uint64

	mu     sync.Mutex
	random *rand.Rand
	chance map[string]float64
	drawn  []fault // of chance, sorted by name, so that a seed repeats
	script [][]fault
	used   map[usedKey]int
}

// usedKey is one fault of one call.
type usedKey struct{ call, spec string }

func newFaults(chance map[string]float64, seed uint64) (*faults, error) {
	f := &faults{
		seed:   seed,
		random: rand.New(rand.NewPCG(seed, 0)),
		used:   make(map[usedKey]int),
	}
	return f, f.setChance(chance)
}

// setChance replaces all probabilities.
func (f *faults) setChance(chance map[string]float64) error {
	var drawn []fault
	for _, spec := range slices.Sorted(maps.Keys(chance)) {
		parsed, err := parseSpec(spec)
		if err != nil {
			return err
		}
		if !isProbability(chance[spec]) {
			return fmt.Errorf("reading fault %q: %v is no probability from 0 to 1", spec, chance[spec])
		}
		drawn = append(drawn, parsed)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chance = maps.Clone(chance)
	f.drawn = drawn
	return nil
}

// extend adds to the script. Each entry is what a header could hold, for one
// request; an empty one lets the request pass.
func (f *faults) extend(entries []string) error {
	var script [][]fault
	for _, entry := range entries {
		list, err := parseFaults(entry)
		if err != nil {
			return err
		}
		for _, one := range list {
			if one.times > 0 {
				return fmt.Errorf("reading fault %q: an entry of a script is used once, so it takes no times", one.spec)
			}
		}
		script = append(script, list)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = append(f.script, script...)
	return nil
}

func (f *faults) clearScript() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = nil
}

// clearUses makes every "times" count anew.
func (f *faults) clearUses() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.used)
}

func (f *faults) state() (chance map[string]float64, script []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	script = make([]string, 0, len(f.script))
	for _, list := range f.script {
		script = append(script, plan{all: list}.String())
	}
	chance = maps.Clone(f.chance)
	if chance == nil {
		chance = map[string]float64{}
	}
	return chance, script
}

// plan is what goes wrong with one request.
type plan struct {
	fault          // the one that decides; kindNone if none does
	all    []fault // that one and those that go with it
	gzip   bool
	cookie bool
	slow   fault
	stall  fault
	large  fault
}

func (p plan) String() string {
	specs := make([]string, 0, len(p.all))
	for _, f := range p.all {
		specs = append(specs, f.spec)
	}
	return strings.Join(specs, ", ")
}

func (p *plan) add(f fault) {
	switch f.kind {
	case kindSlow:
		p.slow = f
	case kindStall:
		p.stall = f
	case kindLarge:
		p.large = f
	case kindGzip:
		p.gzip = true
	case kindCookie:
		p.cookie = true
	default:
		p.fault = f
	}
	p.all = append(p.all, f)
}

// chosen plans with the faults that the request itself names. Of those that
// decide, the first takes it that is not used up for this call, so
// "503; times=1, truncate; times=1" is a sequence.
func (f *faults) chosen(list []fault, call string, reused bool) plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p plan
	decided := false
	for _, one := range list {
		if one.kind.decides() && decided {
			continue
		}
		if one.kind == kindEarlyClose && !reused {
			// Neither applied nor used up: it waits for a reused connection.
			continue
		}
		if one.times > 0 {
			key := usedKey{call, one.spec}
			if f.used[key] >= one.times {
				continue
			}
			if len(f.used) >= rememberedCalls {
				clear(f.used)
			}
			f.used[key]++
		}
		decided = decided || one.kind.decides()
		p.add(one)
	}
	return p
}

// next plans for a request that names no fault: with the script while there
// is one, else by chance.
func (f *faults) next(reused bool) plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []fault
	if len(f.script) > 0 {
		list, f.script = f.script[0], f.script[1:]
	} else {
		for _, one := range f.drawn {
			// Every fault draws for every request, whatever came out before:
			// else changing one probability would change all that follows.
			if f.random.Float64() < f.chance[one.spec] {
				list = append(list, one)
			}
		}
	}
	var p plan
	for _, one := range list {
		switch {
		case one.kind.decides() && p.kind != kindNone:
		case one.kind == kindEarlyClose && !reused:
		default:
			p.add(one)
		}
	}
	return p
}
