package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// lostError is that of a request without a whole answer. When a reload ends the
// connections of the configuration before, a request may have just been written to
// one: that is HTTP's way, and not the sidecar's fault.
type lostError struct{ error }

// results are what was done, and what came of it.
type results struct {
	mu       sync.Mutex
	kinds    map[string]*result // guarded by mu
	examples []string           // guarded by mu; of what was not as it should be
}

// result is what came of requests of a kind.
type result struct {
	requests, lost, wrong int
	statuses              map[int]int
}

// add counts a request, and tells whether its answer is as it should be: of one of
// the statuses wanted, with none of which there is nothing to see.
func (r *results) add(kind string, a answer, want ...int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == nil {
		r.kinds = make(map[string]*result)
	}
	k := r.kinds[kind]
	if k == nil {
		k = &result{statuses: make(map[int]int)}
		r.kinds[kind] = k
	}
	k.requests++
	if errors.As(a.err, new(lostError)) {
		k.lost++
		r.note("%s: lost: %v", kind, a.err)
		return false
	}
	if a.status != 0 {
		k.statuses[a.status]++
	}
	switch {
	case a.err != nil:
		k.wrong++
		r.note("%s: %v", kind, a.err)
	case !slices.Contains(want, a.status):
		k.wrong++
		r.note("%s: status %d, not %v", kind, a.status, want)
	default:
		return true
	}
	return false
}

func (r *results) note(format string, args ...any) {
	if len(r.examples) < 10 {
		r.examples = append(r.examples, fmt.Sprintf(format, args...))
	}
}

// totals returns how many requests there were, and how many of them were lost or
// got an answer that they should not have.
func (r *results) totals() (requests, lost, wrong int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.kinds {
		requests, lost, wrong = requests+k.requests, lost+k.lost, wrong+k.wrong
	}
	return requests, lost, wrong
}

// print prints a table.
func (r *results) print(out io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(out, "%-28s %9s %6s %6s  %s\n", "what was done", "requests", "lost", "wrong", "answers")
	for _, name := range slices.Sorted(maps.Keys(r.kinds)) {
		k := r.kinds[name]
		var statuses []string
		for _, status := range slices.Sorted(maps.Keys(k.statuses)) {
			statuses = append(statuses, fmt.Sprintf("%d: %d", status, k.statuses[status]))
		}
		fmt.Fprintf(out, "%-28s %9d %6d %6d  %s\n", name, k.requests, k.lost, k.wrong, strings.Join(statuses, ", "))
	}
	for _, example := range r.examples {
		fmt.Fprintf(out, "  %s\n", example)
	}
}
