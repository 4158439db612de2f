package caddymodule

import "testing"

func TestTheDefaultOfFlattenIsLeftOutWhereNothingElseIsSaidOfIt(t *testing.T) {
	for query, want := range map[string]string{
		"":                                "",
		"flatten=false":                   "",
		"flatten=false&flatten=false":     "",
		"a=1&flatten=false&b=2":           "a=1&b=2",
		"%61=1&flatten=false":             "%61=1",
		"flatten=true":                    "flatten=true",
		"flatten=true&flatten=false":      "flatten=true&flatten=false",
		"flatten=false&flatt%65n=true":    "flatten=false&flatt%65n=true",
		"flatten&flatten=false":           "flatten&flatten=false",
		"flatten=false&a=1;flatten=true":  "flatten=false&a=1;flatten=true",
		"flatten=false&%zz":               "flatten=false&%zz",
		"Flatten=false&xflatten=false":    "Flatten=false&xflatten=false",
		"a=flatten=false":                 "a=flatten=false",
		"flatten=falsehood&flatten=false": "flatten=falsehood&flatten=false",
	} {
		if got := withoutDefaults(query); got != want {
			t.Errorf("withoutDefaults(%q) = %q, want %q", query, got, want)
		}
	}
}
