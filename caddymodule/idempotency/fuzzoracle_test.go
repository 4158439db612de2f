package idempotency

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What the fuzz tests judge by. None of it uses the code under test, nor the
// library that this reads JSON with.

// walker reads JSON, token by token, with the standard library, which is more
// lenient: it knows neither duplicate names nor what is no Unicode.
type walker struct {
	text []byte
	dec  *json.Decoder
}

func walk(text []byte) *walker {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return &walker{text, dec}
}

// next returns the next token and where it starts.
func (w *walker) next() (token json.Token, start int, err error) {
	start = int(w.dec.InputOffset())
	token, err = w.dec.Token()
	if err != nil {
		return nil, 0, err
	}
	for strings.IndexByte(" \t\r\n,:", w.text[start]) >= 0 {
		start++
	}
	if _, ok := token.(string); ok && isLone(w.text[start:w.dec.InputOffset()]) {
		return nil, 0, errors.New("half a surrogate pair")
	}
	return token, start, nil
}

// value returns the tree of the next value.
func (w *walker) value() (any, error) {
	token, _, err := w.next()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := make(map[string]any)
		for w.dec.More() {
			name, _, err := w.next()
			if err != nil {
				return nil, err
			}
			if _, ok := object[name.(string)]; ok {
				return nil, fmt.Errorf("the name %q is there twice", name)
			}
			if object[name.(string)], err = w.value(); err != nil {
				return nil, err
			}
		}
		_, _, err := w.next()
		return object, err
	case json.Delim('['):
		array := []any{}
		for w.dec.More() {
			element, err := w.value()
			if err != nil {
				return nil, err
			}
			array = append(array, element)
		}
		_, _, err := w.next()
		return array, err
	}
	return token, nil
}

// treeOf returns the tree of text, which is to be one JSON value with unique
// names, in UTF-8.
func treeOf(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("no UTF-8")
	}
	if !json.Valid(text) { // tokens alone are not checked for commas
		return nil, errors.New("no JSON")
	}
	w := walk(text)
	tree, err := w.value()
	if err != nil {
		return nil, err
	}
	if _, err := w.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows")
	}
	return tree, nil
}

var escapedUnit = regexp.MustCompile(`\\(?:u([0-9a-fA-F]{4})|.)`)

// isLone tells whether a JSON string has half a surrogate pair in escapes.
func isLone(quoted []byte) bool {
	end, high := -1, false // where the unit before ended, and whether it is a high one
	for _, at := range escapedUnit.FindAllSubmatchIndex(quoted, -1) {
		var unit uint64
		if at[2] >= 0 {
			unit, _ = strconv.ParseUint(string(quoted[at[2]:at[3]]), 16, 16)
		}
		low := unit>>10 == 0xdc00>>10
		if high && (at[0] != end || !low) || !high && low {
			return true
		}
		high, end = unit>>10 == 0xd800>>10, at[1]
	}
	return high
}

// written appends tree as JSON to b, its members in an order and with white
// space that random decides.
func written(b []byte, tree any, random *uint64) []byte {
	next := func(n int) int {
		*random = *random*6364136223846793005 + 1442695040888963407
		return int(*random>>33) % n
	}
	space := func() { b = append(b, " \n\t\r"[:next(5)]...) }
	space()
	switch v := tree.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			at := next(len(names) + 1)
			names = append(names[:at], append([]string{name}, names[at:]...)...)
		}
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = written(b, name, random)
			b = append(b, ':')
			b = written(b, v[name], random)
		}
		space()
		b = append(b, '}')
	case []any:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = written(b, element, random)
		}
		space()
		b = append(b, ']')
	case json.Number:
		b = append(b, v...)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		b = append(b, text...)
	}
	space()
	return b
}

var (
	hexPair = regexp.MustCompile(`^%[0-9A-Fa-f]{2}`)
	plain   = regexp.MustCompile(`^[A-Za-z0-9._~-]$`) // need not be encoded
)

// pathTokens takes a path apart: each byte, and whether it has to be encoded;
// or none, if something in it is neither.
func pathTokens(path string) (tokens []string) {
	whole := []string{"no path: " + path}
	for path != "" {
		token := path[:1]
		if token == "%" {
			pair := hexPair.FindString(path)
			if pair == "" {
				return whole
			}
			c, _ := strconv.ParseUint(pair[1:], 16, 8)
			path = path[2:]
			token = fmt.Sprint("encoded ", c)
			if plain.MatchString(string(rune(c))) {
				token = string(rune(c))
			}
		}
		tokens = append(tokens, token)
		path = path[1:]
	}
	return tokens
}

// params returns the values of a query by name; all of it under a name that no
// parameter has, if it is no list of parameters.
func params(query string) map[string][]string {
	whole := map[string][]string{"\x00 no list": {query}}
	all := make(map[string][]string)
	for _, part := range strings.Split(query, "&") {
		if strings.Contains(part, ";") {
			return whole
		}
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, ok := formDecoded(name)
		value, ok2 := formDecoded(value)
		if !ok || !ok2 {
			return whole
		}
		all[name] = append(all[name], value)
	}
	return all
}

func formDecoded(s string) (string, bool) {
	var b strings.Builder
	for ; s != ""; s = s[1:] {
		switch s[0] {
		case '+':
			b.WriteByte(' ')
		case '%':
			if !hexPair.MatchString(s) {
				return "", false
			}
			c, _ := strconv.ParseUint(s[1:3], 16, 8)
			b.WriteByte(byte(c))
			s = s[2:]
		default:
			b.WriteByte(s[0])
		}
	}
	return b.String(), true
}

// plainMedia matches media types that nobody can read otherwise.
var plainMedia = regexp.MustCompile(`^[a-z-]+/[a-z+-]+(; ?[a-z]+=[a-z0-9-]+)?$`)

func mediaType(header string) string {
	base, _, _ := strings.Cut(header, ";")
	return strings.ToLower(strings.TrimSpace(base))
}

var pointerForm = regexp.MustCompile(`^(/([^~/]|~[01])*)+$`)

// isPointer tells whether s is a pointer (RFC 6901), but not to the whole.
func isPointer(s string) bool { return utf8.ValidString(s) && pointerForm.MatchString(s) }

func pointerNames(pointer string) []string {
	names := strings.Split(pointer, "/")[1:]
	for i, name := range names {
		names[i] = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
	}
	return names
}

// site is where a key has to be written: in place of text[start:end].
type site struct {
	start, end int
	name       string // of the member to be made
	make       bool
	comma      bool // other members follow
}

// written returns the key in what was written, or something that is no key.
func (s site) written(text []byte) string {
	var key string
	if !s.make {
		if json.Unmarshal(text, &key) != nil {
			return "\x00 no string"
		}
		return key
	}
	text, comma := bytes.CutSuffix(text, []byte(","))
	tree, err := treeOf([]byte("{" + string(text) + "}"))
	object, _ := tree.(map[string]any)
	if key, ok := object[s.name].(string); ok && err == nil && comma == s.comma && len(object) == 1 {
		return key
	}
	return "\x00 no member"
}

// placeOf finds where the key belongs that names lead to.
func placeOf(text []byte, names []string) (site, error) {
	if _, err := treeOf(text); err != nil {
		return site{}, err
	}
	w := walk(text)
	for i, name := range names {
		token, _, err := w.next()
		if err != nil {
			return site{}, err
		}
		inside := int(w.dec.InputOffset())
		some, found := w.dec.More(), false
		switch token {
		case json.Delim('{'):
			for !found && w.dec.More() {
				got, _, _ := w.next()
				if found = got == name; !found {
					w.value()
				}
			}
			if !found && i == len(names)-1 {
				return site{start: inside, end: inside, name: name, make: true, comma: some}, nil
			}
		case json.Delim('['):
			for index := 0; !found && w.dec.More(); index++ {
				if found = strconv.Itoa(index) == name; !found {
					w.value()
				}
			}
		}
		if !found {
			return site{}, errors.New("nothing is there")
		}
	}
	start := int(w.dec.InputOffset())
	for strings.IndexByte(" \t\r\n,:", text[start]) >= 0 {
		start++
	}
	_, err := w.value()
	return site{start: start, end: int(w.dec.InputOffset())}, err
}
