package idempotency

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// FuzzParseKey holds keys against the grammar, read anew: 1 to 255 visible
// characters, raw or as one quoted string.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{
		"", "a", `"a"`, `"a\"b"`, `"a\\"`, `"a\n"`, `"a";p`, `a"b`, `a\b`, `"`, `""`, `"\"`, `"a`, `"a" `, ` a`, `"a b"`, "\x00", "\x7f", "!", "~", "ä", "\xff",
		strings.Repeat("k", 255), strings.Repeat("k", 256), `"` + strings.Repeat(`\\`, 255) + `"`, `"` + strings.Repeat(`\"`, 256) + `"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := ParseKey(value)
		want, ok := keyIn(value)
		if (err == nil) != ok || key != want {
			t.Fatalf("ParseKey(%q) = %q, %v; want %q, %v", value, key, err, want, ok)
		}
		if !ok {
			return
		}
		// Every key can be written quoted, and is the same then.
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := ParseKey(quoted); err != nil || again != key {
			t.Fatalf("ParseKey(%q) = %q, %v; want %q", quoted, again, err, key)
		}
		// And raw, unless it begins as if it were quoted.
		if again, err := ParseKey(key); !strings.HasPrefix(key, `"`) && (err != nil || again != key) {
			t.Fatalf("ParseKey(%q) = %q, %v", key, again, err)
		}
	})
}

// keyIn reads a key by taking the value apart from its end.
func keyIn(value string) (string, bool) {
	key := value
	if strings.HasPrefix(value, `"`) {
		inner, ok := strings.CutSuffix(value[1:], `"`)
		if !ok {
			return "", false
		}
		parts := strings.Split(inner, `\\`) // no backslash is left in them but before a quote
		for i, part := range parts {
			part = strings.ReplaceAll(part, `\"`, "\x00")
			if strings.ContainsAny(part, `"\`) || strings.Count(part, "\x00") != strings.Count(parts[i], `\"`) {
				return "", false
			}
			parts[i] = strings.ReplaceAll(part, "\x00", `"`)
		}
		key = strings.Join(parts, `\`)
	}
	visible := func(r rune) bool { return '!' <= r && r <= '~' }
	if len(key) < 1 || len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return !visible(r) }) {
		return "", false
	}
	return key, true
}

// FuzzCanonicalJSON holds the canonical form against trees that the standard
// library reads: two bodies have the same form if, and only if, they have the
// same tree; and what has no tree counts byte for byte.
func FuzzCanonicalJSON(f *testing.F) {
	for _, seed := range []string{
		`{"b":1,"a":2}`, `{"a":2, "b":1}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[1,"1",1.0,1e0]`, `[9007199254740993,9007199254740992]`,
		`[1.0,1E2,-0,0.1,1e400,-1e-400]`, `"\ud800"`, `"\ud83d\ude00"`, `"😀"`, `"\ude00\ud83d"`, `"\u0061"`, `"\/\b\f\n\r\t\"\\"`, `"\u2028\u007f"`,
		`null`, ``, `{`, "\"\xff\"", `{"a":null}`, `{}`, `[[[]]]`, " 1 \n", "\f1", `1 2`, "\ufeff1", `{"":{"":[]}}`, `[true,false,null]`,
		`{"\ud83d\ude00":1,"\ufffd":2,"é":3}`, `{"a":{"c":1,"b":[{"z":1,"y":2}]}}`, `01`, `-`, `1.`, `tru`, `"\x"`, "\"\n\"", `[1,]`, `{"a":1,}`,
	} {
		for _, edits := range []string{"", "\x05\x02\x00", "\x00\x01 \x02\x05 "} {
			f.Add([]byte(seed), []byte(edits), uint64(len(seed)))
		}
	}
	f.Fuzz(func(t *testing.T, a, edits []byte, order uint64) {
		before := bytes.Clone(a)
		canonA := canonicalJSON(new([]byte), a)
		if !bytes.Equal(a, before) {
			t.Fatalf("the body %q became %q", before, a)
		}
		if again := canonicalJSON(new([]byte), canonA); !bytes.Equal(again, canonA) {
			t.Fatalf("canonicalJSON(%q) = %q, of which it is %q", a, canonA, again)
		}
		treeA, errA := treeOf(a)
		if errA != nil {
			if !bytes.Equal(canonA, a) {
				t.Fatalf("%q is no JSON with unique names (%v), but became %q", a, errA, canonA)
			}
		} else {
			if tree, err := treeOf(canonA); err != nil || !reflect.DeepEqual(tree, treeA) {
				t.Fatalf("%q means %v, its form %q means %v, %v", a, treeA, canonA, tree, err)
			}
			shuffled := written(nil, treeA, &order)
			if canon := canonicalJSON(new([]byte), shuffled); !bytes.Equal(canon, canonA) {
				t.Fatalf("%q has the form %q, but %q has %q", a, canonA, shuffled, canon)
			}
		}

		b := edited(a, edits)
		treeB, errB := treeOf(b)
		same := errA == nil && errB == nil && reflect.DeepEqual(treeA, treeB) || bytes.Equal(a, b)
		if canonB := canonicalJSON(new([]byte), b); bytes.Equal(canonA, canonB) != same {
			t.Fatalf("%q and %q have the forms %q and %q, but mean %v, %v and %v, %v", a, b, canonA, canonB, treeA, errA, treeB, errB)
		}
	})
}

// FuzzFingerprint checks that two requests have the same fingerprint if, and
// only if, they differ in nothing but what Request.Fingerprint names.
func FuzzFingerprint(f *testing.F) {
	type seed struct{ path, query, media string }
	for i, s := range []seed{
		{"/api/v2/integrations/actions/a/execute", "a=1&b=2&a=3", "application/json"},
		{"/a%2fb%41%7e", "a=x%20y+z&b=%zz", "Application/JSON; charset=utf-8"},
		{"/%", "a;b", "text/plain;"}, {"/%%41", "&&", " a/b;c=d;c=e"}, {"/%4", "a&a=&=a&=", "a/b; c"}, {"", "", ""}, {"/ä%C3%A4", "%61=1&a=2", "é/x"},
		{"/%2561", "a=%26&b", "x"}, {"/a//b/./c/../d;e", "b=1&a=1&B=1", "A/B ;c"},
	} {
		f.Add(s.path, s.query, s.media, []byte("\x03\x02\x00\x04\x00\x01"), byte(i))
		f.Add(s.path, s.query, s.media, []byte("\x06\x02\x00"), byte(i+1))
		f.Add(s.path, s.query, s.media, []byte("\x03\x00\x00\x06\x03\x00"), byte(2))
	}
	f.Fuzz(func(t *testing.T, path, query, media string, edits []byte, what byte) {
		a := Request{Method: "POST", Path: path, Query: query, MediaType: media, Body: []byte(media)}
		b := a
		part := []*string{&b.Path, &b.Query, &b.MediaType}[what%3]
		*part = string(edited([]byte(*part), edits))

		var same bool
		switch what % 3 {
		case 0:
			same = reflect.DeepEqual(pathTokens(a.Path), pathTokens(b.Path))
		case 1:
			same = reflect.DeepEqual(params(a.Query), params(b.Query))
		case 2:
			// What of an odd header is no parameter may count as well.
			same = mediaType(a.MediaType) == mediaType(b.MediaType)
			if !plainMedia.MatchString(a.MediaType) || !plainMedia.MatchString(b.MediaType) {
				same = same && a.Fingerprint() == b.Fingerprint()
			}
		}
		if (a.Fingerprint() == b.Fingerprint()) != same {
			t.Fatalf("%+v and %+v are the same: want %v", a, b, same)
		}
		if (a.Digest() == b.Digest()) != reflect.DeepEqual(a, b) {
			t.Fatalf("the digests of %+v and %+v", a, b)
		}
	})
}

// FuzzPointer writes a key into a document and reads it back, and checks that
// the rest of the document stays byte for byte.
func FuzzPointer(f *testing.F) {
	for _, s := range []struct{ pointer, body, key string }{
		{"/id", `{"a":1, "id" : "old" ,"z":2}`, "K"}, {"/a/1", `{"a":[1, 2 ,3]}`, `a"b\c`}, {"/id", ` {"z" : 1.0, "a":"\u0061"} `, `"quoted"`},
		{"/id", "{ \n}", "k"}, {"/a/0/id", `{"a":[{"x":{}}]}`, `"`}, {"/a~1~0\"", `{}`, "~"}, {"/~01", `{"~1":"k","/":"no"}`, "<&>"},
		{"/", `{"":null}`, "k"}, {"//", `{"":{"":[1]}}`, "k"}, {"/a/-", `{"a":[0]}`, "k"}, {"/a/00", `{"a":[0]}`, "k"}, {"/0", `{"0":1}`, "k"},
		{"/id", `{"id":1,"id":2}`, "k"}, {"/\u00e9", `{"\u00e9":{"x":[]}}`, "k"}, {"/a", `[]`, "k"}, {"", `{}`, "k"}, {"/~2", `{}`, "k"}, {"/\xff", `{}`, "k"},
		{"/4294967296", `[1]`, "k"}, {"/18446744073709551616", `[1]`, "k"},
	} {
		f.Add(s.pointer, []byte(s.body), s.key)
	}
	f.Fuzz(func(t *testing.T, text string, body []byte, key string) {
		p, err := ParsePointer(text)
		if (err == nil) != isPointer(text) {
			t.Fatalf("ParsePointer(%q): %v", text, err)
		}
		if _, ok := keyIn(key); err != nil || !ok && !strings.HasPrefix(key, `"`) || strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' }) {
			return // no key is like this
		}
		want, wantErr := placeOf(body, pointerNames(text))
		before := bytes.Clone(body)
		got, err := p.Write(body, key)
		if !bytes.Equal(body, before) {
			t.Fatalf("the body given became %q", body)
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("writing at %s in %q: %v; want %v", text, body, err, wantErr)
		}
		if err != nil {
			if key, err := p.Key(body); key != "" && err == nil {
				t.Fatalf("there is a key %q in %q at %s, but none can be written", key, body, text)
			}
			return
		}
		written, ok := between(got, body[:want.start], body[want.end:])
		if !ok {
			t.Fatalf("writing at %s in %q changed more than that: %q", text, body, got)
		}
		if what := want.written(written); what != key {
			t.Fatalf("writing %q at %s in %q wrote %q", key, text, body, written)
		}
		wantKey, wantErr := ParseKey(key)
		if read, err := p.Key(got); read != wantKey || (err == nil) != (wantErr == nil) {
			t.Fatalf("%q was written at %s, and %q, %v is read from %q", key, text, read, err, got)
		}
		if again, err := p.Write(got, key); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("written again, %q became %q, %v", got, again, err)
		}
	})
}

func between(b, prefix, suffix []byte) ([]byte, bool) {
	if len(b) < len(prefix)+len(suffix) || !bytes.HasPrefix(b, prefix) || !bytes.HasSuffix(b, suffix) {
		return nil, false
	}
	return b[len(prefix) : len(b)-len(suffix)], true
}

// edited returns a copy of b with small changes, each by three bytes of edits:
// what, where, and with what. The fuzzer seldom finds two inputs by itself that
// are nearly the same.
func edited(b, edits []byte) []byte {
	b = bytes.Clone(b)
	for ; len(edits) >= 3 && len(b) < 1<<12; edits = edits[3:] {
		if len(b) == 0 {
			b = []byte{edits[2]}
			continue
		}
		at, c := int(edits[1])%len(b), edits[2]
		with := func(s string) []byte { return append(append(bytes.Clone(b[:at]), s...), b[at+1:]...) }
		switch edits[0] % 7 {
		case 0: // put in
			b = with(string([]byte{c, b[at]}))
		case 1: // take out
			b = with("")
		case 2: // replace
			b = with(string([]byte{c}))
		case 3: // percent-encode
			b = with(fmt.Sprintf("%%%02"+[]string{"X", "x"}[c%2], b[at]))
		case 4: // put the first parameter last
			if first, rest, ok := bytes.Cut(b, []byte("&")); ok {
				b = []byte(string(rest) + "&" + string(first))
			}
		case 5: // escape
			b = with(fmt.Sprintf(`\u%04x`, b[at]))
		case 6: // the other case
			b = with(string([]byte{b[at] ^ 0x20}))
		}
	}
	return b
}
