package idempotency_test

import (
	"errors"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

func pointer(t *testing.T, s string) idempotency.Pointer {
	t.Helper()
	p, err := idempotency.ParsePointer(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParsePointerRefuses(t *testing.T) {
	for _, s := range []string{"", "a", "#/a", "/a~", "/a~2", "/~x/b"} {
		if _, err := idempotency.ParsePointer(s); err == nil {
			t.Errorf("ParsePointer(%q) accepts it", s)
		}
	}
}

func TestPointerKey(t *testing.T) {
	for name, c := range map[string]struct{ pointer, body, key string }{
		"string":                 {"/id", `{"id":"order-42"}`, "order-42"},
		"string with an escape":  {"/id", `{"id":"\u0061b"}`, "ab"},
		"integer":                {"/id", `{"id": 42 }`, "42"},
		"integer beyond float64": {"/id", `{"id":9007199254740993}`, "9007199254740993"},
		"fraction as written":    {"/id", `{"id":1.50}`, "1.50"},
		"nested":                 {"/a/b/c", `{"x":{"b":1},"a":{"x":[],"b":{"c":"k"}}}`, "k"},
		"in an array":            {"/a/1/id", `{"a":[{"id":"no"},{"id":"k"}]}`, "k"},
		"first of an array":      {"/0", `["k"]`, "k"},
		"name with a slash":      {"/a~1b", `{"a":{"b":"no"},"a/b":"k"}`, "k"},
		"name with a tilde":      {"/a~0b", `{"a~b":"k"}`, "k"},
		"name that looks like 1": {"/~01", `{"~1":"k","/":"no"}`, "k"},
		"empty name":             {"/", `{"":"k"}`, "k"},
		"name with an escape":    {"/ab", `{"\u0061b":"k"}`, "k"},
		"number as a name":       {"/0", `{"0":"k"}`, "k"},
		"null":                   {"/id", `{"id":null}`, ""},
		"empty string":           {"/id", `{"id":""}`, ""},
		"missing":                {"/id", `{"ID":"k"}`, ""},
		"missing parent":         {"/a/id", `{"id":"k"}`, ""},
		"parent is a string":     {"/a/id", `{"a":"id"}`, ""},
		"parent is null":         {"/a/id", `{"a":null}`, ""},
		"beyond an array":        {"/a/2", `{"a":["x","y"]}`, ""},
		"after an array's last":  {"/a/-", `{"a":["x"]}`, ""},
		"leading zero":           {"/a/00", `{"a":["x"]}`, ""},
		"scalar body":            {"/id", `"id"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := pointer(t, c.pointer).Key([]byte(c.body))
			if err != nil || key != c.key {
				t.Errorf("Key(%s) at %s = %q, %v; want %q", c.body, c.pointer, key, err, c.key)
			}
		})
	}
}

func TestPointerKeyRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		err  error
	}{
		"object":            {`{"id":{}}`, idempotency.ErrInvalidKey},
		"array":             {`{"id":["k"]}`, idempotency.ErrInvalidKey},
		"boolean":           {`{"id":true}`, idempotency.ErrInvalidKey},
		"string with space": {`{"id":"a b"}`, idempotency.ErrInvalidKey},
		"too long":          {`{"id":"` + strings.Repeat("k", 256) + `"}`, idempotency.ErrInvalidKey},
		"no JSON":           {`{"id":"k"`, idempotency.ErrInvalidBody},
		"empty body":        {``, idempotency.ErrInvalidBody},
		"two values":        {`{"id":"k"} {}`, idempotency.ErrInvalidBody},
		"duplicates":        {`{"id":"k","id":"l"}`, idempotency.ErrInvalidBody},
		"duplicates after":  {`{"id":"k","z":{"a":1,"a":2}}`, idempotency.ErrInvalidBody},
		"invalid UTF-8":     {"{\"id\":\"\xff\"}", idempotency.ErrInvalidBody},
	} {
		t.Run(name, func(t *testing.T) {
			if key, err := pointer(t, "/id").Key([]byte(c.body)); !errors.Is(err, c.err) || key != "" {
				t.Errorf("Key(%s) = %q, %v; want %v", c.body, key, err, c.err)
			}
		})
	}
}

func TestPointerWrite(t *testing.T) {
	for name, c := range map[string]struct{ pointer, body, want string }{
		"replaces a string":         {"/id", `{"a":1, "id" : "old" ,"z":2}`, `{"a":1, "id" : "K" ,"z":2}`},
		"replaces a number":         {"/id", `{"id":1.0}`, `{"id":"K"}`},
		"replaces null":             {"/id", `{"id":null}`, `{"id":"K"}`},
		"replaces an object":        {"/id", "{\"id\":{\n}\n}", "{\"id\":\"K\"\n}"},
		"replaces an element":       {"/a/1", `{"a":[1, 2 ,3]}`, `{"a":[1, "K" ,3]}`},
		"inserts":                   {"/id", ` {"z" : 1.0, "a":"\u0061"} `, ` {"id":"K","z" : 1.0, "a":"\u0061"} `},
		"inserts into an empty one": {"/id", `{}`, `{"id":"K"}`},
		"inserts into white space":  {"/id", "{ \n}", "{\"id\":\"K\" \n}"},
		"inserts deep":              {"/a/0/id", `{"a":[{"x":{}}]}`, `{"a":[{"id":"K","x":{}}]}`},
		"inserts deep and empty":    {"/a/b", `{"x":1,"a":{}}`, `{"x":1,"a":{"b":"K"}}`},
		"inserts an escaped name":   {"/a~1~0\"", `{}`, `{"a/~\"":"K"}`},
		"leaves big numbers":        {"/id", `{"n":9007199254740993,"id":0}`, `{"n":9007199254740993,"id":"K"}`},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(c.body)
			got, err := pointer(t, c.pointer).Write(body, "K")
			if err != nil || string(got) != c.want {
				t.Errorf("Write(%s) at %s = %s, %v; want %s", c.body, c.pointer, got, err, c.want)
			}
			if string(body) != c.body {
				t.Errorf("the body given became %s", body)
			}
		})
	}
}

func TestPointerWriteEscapesTheKey(t *testing.T) {
	p := pointer(t, "/id")
	got, err := p.Write([]byte(`{}`), `a"b\c`)
	if err != nil || string(got) != `{"id":"a\"b\\c"}` {
		t.Fatalf("got %s, %v", got, err)
	}
	if key, err := p.Key(got); err != nil || key != `a"b\c` {
		t.Errorf("the key written is read as %q, %v", key, err)
	}
}

func TestPointerWriteRefuses(t *testing.T) {
	for name, c := range map[string]struct{ pointer, body string }{
		"missing parent":       {"/a/id", `{}`},
		"parent is a string":   {"/a/id", `{"a":"x"}`},
		"parent is null":       {"/a/id", `{"a":null}`},
		"beyond an array":      {"/a/1", `{"a":[0]}`},
		"end of an array":      {"/a/-", `{"a":[0]}`},
		"scalar body":          {"/id", `1`},
		"array body":           {"/id", `[]`},
		"no body":              {"/id", ``},
		"no JSON":              {"/id", `{"id":`},
		"two values":           {"/id", `{} {}`},
		"duplicates":           {"/id", `{"id":1,"id":2}`},
		"duplicates elsewhere": {"/id", `{"id":1,"z":[{"a":1,"a":1}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := pointer(t, c.pointer).Write([]byte(c.body), "K"); !errors.Is(err, idempotency.ErrInvalidBody) || got != nil {
				t.Errorf("Write(%s) at %s = %s, %v; want ErrInvalidBody", c.body, c.pointer, got, err)
			}
		})
	}
}
