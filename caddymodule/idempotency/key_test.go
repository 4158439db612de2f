package idempotency_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestParseKeyAccepts(t *testing.T) {
	for name, c := range map[string]struct{ value, key string }{
		"raw":                    {`order-42`, `order-42`},
		"quoted":                 {`"order-42"`, `order-42`},
		"one character":          {`k`, `k`},
		"one quoted character":   {`"k"`, `k`},
		"255 characters":         {strings.Repeat("k", 255), strings.Repeat("k", 255)},
		"255 quoted characters":  {`"` + strings.Repeat("k", 255) + `"`, strings.Repeat("k", 255)},
		"escaped quote":          {`"a\"b"`, `a"b`},
		"escaped backslash":      {`"a\\b"`, `a\b`},
		"255 escaped characters": {`"` + strings.Repeat(`\\`, 255) + `"`, strings.Repeat(`\`, 255)},
		"raw backslash":          {`a\b`, `a\b`},
		"raw quote inside":       {`a"b`, `a"b`},
		"first visible":          {`!`, `!`},
		"last visible":           {`~`, `~`},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := idempotency.ParseKey(c.value)
			if err != nil || key != c.key {
				t.Errorf("ParseKey(%q) = %q, %v; want %q", c.value, key, err, c.key)
			}
		})
	}
}

func TestAKeyIsToldAsOneMaySendIt(t *testing.T) {
	for key, want := range map[string]string{
		`order-42`: `order-42`,
		`a"b\c`:    `a"b\c`,
		`"q"`:      `"\"q\""`,
		`"yy`:      `"\"yy"`,
		`"\`:       `"\"\\"`,
	} {
		told := idempotency.FormatKey(key)
		if told != want {
			t.Errorf("%s is told as %s, want %s", key, told, want)
		}
		if again, err := idempotency.ParseKey(told); err != nil || again != key {
			t.Errorf("%s is told as %s, which is taken for %s, %v", key, told, again, err)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for name, value := range map[string]string{
		"empty":                      ``,
		"empty quoted":               `""`,
		"256 characters":             strings.Repeat("k", 256),
		"256 quoted characters":      `"` + strings.Repeat("k", 256) + `"`,
		"space":                      `a b`,
		"quoted space":               `"a b"`,
		"leading space":              ` a`,
		"tab":                        "a\tb",
		"newline":                    "a\n",
		"NUL":                        "a\x00",
		"DEL":                        "a\x7f",
		"quoted DEL":                 "\"a\x7f\"",
		"not ASCII":                  "schlüssel",
		"invalid UTF-8":              "a\xff",
		"lone quote":                 `"`,
		"no closing quote":           `"abc`,
		"closing quote escaped":      `"abc\"`,
		"ends in a backslash":        `"abc\`,
		"unknown escape":             `"a\nb"`,
		"something after the quote":  `"a"b`,
		"parameters after the quote": `"a";p=1`,
		"space after the quote":      `"a" `,
		"list":                       `"a", "b"`,
	} {
		t.Run(name, func(t *testing.T) {
			if key, err := idempotency.ParseKey(value); !errors.Is(err, idempotency.ErrInvalidKey) || key != "" {
				t.Errorf("ParseKey(%q) = %q, %v; want ErrInvalidKey", value, key, err)
			}
		})
	}
}

func TestUpstreamKeyWithoutScopeIsTheKey(t *testing.T) {
	if got := idempotency.UpstreamKey("", "order-42"); got != "order-42" {
		t.Errorf("got %q", got)
	}
}

func TestUpstreamKeyWithScopeIsAStableUUIDv8(t *testing.T) {
	got := idempotency.UpstreamKey("alice", "order-42")
	u, err := uuid.Parse(got)
	if err != nil || u.Version() != 8 || u.Variant() != uuid.RFC4122 || got != u.String() {
		t.Errorf("%q is no version 8 UUID (%v)", got, err)
	}
	// Written down, since a sidecar of another version must derive the same.
	if want := "da8331ac-10ad-86cf-b30b-38959259199f"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestUpstreamKeysOfDifferentCallersDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][2]string{{"alice", "k"}, {"bob", "k"}, {"alice", "l"}, {"a", "bc"}, {"ab", "c"}, {"", "abc"}} {
		key := idempotency.UpstreamKey(c[0], c[1])
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q share %s", c, other, key)
		}
		seen[key] = strings.Join(c[:], "|")
	}
}

func TestRandomKeysAreUUIDsAndDiffer(t *testing.T) {
	a, b := idempotency.RandomKey(), idempotency.RandomKey()
	if a == b {
		t.Errorf("both are %s", a)
	}
	if u, err := uuid.Parse(a); err != nil || u.Version() != 4 {
		t.Errorf("%s is no version 4 UUID", a)
	}
	if _, err := idempotency.ParseKey(a); err != nil {
		t.Errorf("a random key is no key: %v", err)
	}
}

func TestIDsOfDifferentPartsDiffer(t *testing.T) {
	fpA := fp("a")
	ids := map[string]idempotency.ID{
		"a bc":     idempotency.NewID("o", "a", "bc"),
		"ab c":     idempotency.NewID("o", "ab", "c"),
		"oa b c":   idempotency.NewID("oa", "b", "c"),
		"abc":      idempotency.NewID("o", "", "abc"),
		"abc none": idempotency.NewID("o", "abc", ""),
		"o2 a bc":  idempotency.NewID("o2", "a", "bc"),
		"hash":     idempotency.NewHashID("o", "a", fpA),
		"hash b":   idempotency.NewHashID("o", "a", fp("b")),
		"hash s":   idempotency.NewHashID("o", "b", fpA),
		"as a key": idempotency.NewID("o", "a", string(fpA[:])),
		"adoption": idempotency.ID(idempotency.NewAdoptionID("o", "a", fpA)),
	}
	seen := map[idempotency.ID]string{}
	for name, id := range ids {
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s share an ID", name, other)
		}
		seen[id] = name
	}
	if ids["a bc"] != idempotency.NewID("o", "a", "bc") {
		t.Error("the same parts have different IDs")
	}
}

func TestAdoptionIDsOfDifferentScopesDiffer(t *testing.T) {
	if idempotency.NewAdoptionID("o", "a", fp("x")) == idempotency.NewAdoptionID("o", "b", fp("x")) {
		t.Error("two scopes share an adoption ID")
	}
	if idempotency.NewAdoptionID("o", "a", fp("x")) == (idempotency.AdoptionID{}) {
		t.Error("the adoption ID is zero")
	}
}

func TestOwnersTellTheirProcessAndNothingElseAlike(t *testing.T) {
	p := idempotency.NewProcess()
	a, b := p.NewOwner(), p.NewOwner()
	if a == b {
		t.Error("two claims have the same token")
	}
	if a.Process() != p || b.Process() != p {
		t.Error("an owner does not tell its process")
	}
	if idempotency.NewProcess() == p {
		t.Error("two processes are the same")
	}
}

func TestNamesAreFitForLogs(t *testing.T) {
	for state, name := range map[idempotency.State]string{
		idempotency.Started: "started", idempotency.Done: "done", idempotency.Unknown: "unknown",
		idempotency.Open: "open", 0: "invalid",
	} {
		if state.String() != name {
			t.Errorf("state %d is called %q, not %q", state, state, name)
		}
	}
	id := idempotency.NewID("o", "s", "secret")
	if s := id.String(); len(s) != 12 || strings.Contains(s, "secret") {
		t.Errorf("an ID is logged as %q", s)
	}
}
