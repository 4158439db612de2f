package idempotency

import "testing"

func TestCanonicalJSON(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"sorts members":            {`{"b":1,"a":{"d":[],"c":{}}}`, `{"a":{"c":{},"d":[]},"b":1}`},
		"removes white space":      {" [ 1 ,\n2 ] ", `[1,2]`},
		"writes strings one way":   {`"\u0041\/\u00e9"`, `"A/é"`},
		"leaves numbers":           {`[1.0,1E2,-0,9007199254740993,1e400]`, `[1.0,1E2,-0,9007199254740993,1e400]`},
		"leaves duplicates":        {`{"b":1, "a":2, "b":3}`, `{"b":1, "a":2, "b":3}`},
		"leaves nested duplicates": {`[{"b":1, "b":3}]`, `[{"b":1, "b":3}]`},
		"leaves escaped twins":     {`{"a":1, "\u0061":2}`, `{"a":1, "\u0061":2}`},
		"leaves invalid JSON":      {` {"b":1,} `, ` {"b":1,} `},
		"leaves several values":    {`{} {}`, `{} {}`},
		"leaves lone surrogates":   {` "\ud800"`, ` "\ud800"`},
		"leaves invalid UTF-8":     {" \"\xff\"", " \"\xff\""},
		"leaves other space":       {"\f{ }\u00a0", "\f{ }\u00a0"},
		"leaves nothing":           {``, ``},
	} {
		t.Run(name, func(t *testing.T) {
			if got := canonicalJSON(new([]byte), []byte(c.body)); string(got) != c.want {
				t.Errorf("canonicalJSON(%q) = %q, want %q", c.body, got, c.want)
			}
		})
	}
}
