package idempotency

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

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
			if got := canonicalJSON([]byte(c.body)); string(got) != c.want {
				t.Errorf("canonicalJSON(%q) = %q, want %q", c.body, got, c.want)
			}
		})
	}
}

// FuzzCanonicalJSON checks that canonicalising twice is the same as once, that
// a body means what its canonical form means, and that two bodies with the
// same form mean the same.
func FuzzCanonicalJSON(f *testing.F) {
	seeds := []string{
		`{"b":1,"a":2}`, `{"a":2, "b":1}`, `{"a":1,"a":2}`, `[1,"1",1.0,1e0]`, `9007199254740993`, `9007199254740992`,
		`"\ud800"`, `"\u0061"`, `"a"`, `null`, ``, `{`, "\"\xff\"", `{"a":null}`, `{}`, `[[[]]]`, ` 1 `, "\f1", `1 2`, `-0`,
	}
	for i, a := range seeds {
		f.Add([]byte(a), []byte(seeds[(i+1)%len(seeds)]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		before := bytes.Clone(a)
		canonA, canonB := canonicalJSON(a), canonicalJSON(b)
		if !bytes.Equal(a, before) {
			t.Fatalf("the body %q became %q", before, a)
		}
		if again := canonicalJSON(canonA); !bytes.Equal(again, canonA) {
			t.Fatalf("canonicalJSON(%q) = %q, of which it is %q", a, canonA, again)
		}
		valueA, errA := decode(a)
		valueCanon, errCanon := decode(canonA)
		if (errA == nil) != (errCanon == nil) || errA == nil && !reflect.DeepEqual(valueA, valueCanon) {
			t.Fatalf("%q means %v, its form %q means %v", a, valueA, canonA, valueCanon)
		}
		if !bytes.Equal(canonA, canonB) {
			return
		}
		valueB, errB := decode(b)
		if (errA == nil) != (errB == nil) || errA == nil && !reflect.DeepEqual(valueA, valueB) {
			t.Fatalf("%q and %q have the form %q, but mean %v and %v", a, b, canonA, valueA, valueB)
		}
	})
}

func decode(body []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}
