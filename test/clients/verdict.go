package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// wrongs returns what is wrong with what came of the client through the sidecar.
func (p *play) wrongs() []string {
	var wrong []string
	add := func(format string, args ...any) {
		key := "no key"
		if p.scenario.keyed {
			key = "a key"
		}
		wrong = append(wrong, fmt.Sprintf("%s, %s with %s, %s: ", p.client.name, p.scenario.family, key, p.scenario.what)+
			fmt.Sprintf(format, args...))
	}
	meant := p.scenario.meant()
	if p.sidecar.executed > meant {
		add("executed %d times, meant %d", p.sidecar.executed, meant)
	}
	told := 0
	for i, e := range p.sidecar.ends {
		if e.ok() {
			told++
		}
		if e.hung {
			add("the client hangs")
		}
		direct := p.direct.ends[i]
		switch {
		case e.hung, !direct.ok():
		case !e.ok() && p.direct.executed == meant && p.scenario.certain():
			add("the client ended with %v, directly with %v", e, direct)
		case e.ok() && shape(e.body) != shape(direct.body):
			add("the client got %s, directly %s", e.body, direct.body)
		}
	}
	if told > 0 && p.sidecar.executed < min(meant, told) {
		add("told of success, but executed %d times", p.sidecar.executed)
	}
	return wrong
}

// meant is how often the order is to be executed.
func (s scenario) meant() int {
	if s.keyed {
		return 1
	}
	return s.runs
}

// shape returns what must be the same in an answer however the order went: all
// but what the sandbox makes up for each execution.
func shape(body string) string {
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return body
	}
	for name, value := range answer {
		switch value.(type) {
		case map[string]any, []any:
		default:
			answer[name] = "…"
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(answer)) {
		text, _ := json.Marshal(answer[name])
		fmt.Fprintf(&b, "%s=%s ", name, text)
	}
	return b.String()
}
