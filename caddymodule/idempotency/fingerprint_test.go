package idempotency_test

import (
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

// basis is the request that the others are compared with.
func basis() idempotency.Request {
	return idempotency.Request{
		Method:    "POST",
		Path:      "/api/v2/integrations/actions/custom_-_1/execute",
		Query:     "a=1&b=2",
		MediaType: "application/json",
		Body:      []byte(`{"id":1,"name":"Ann","tags":[1,2],"none":null}`),
	}
}

func TestFingerprintIsTheSame(t *testing.T) {
	type pair struct{ a, b func(*idempotency.Request) }
	body := func(s string) func(*idempotency.Request) {
		return func(r *idempotency.Request) { r.Body = []byte(s) }
	}
	path := func(s string) func(*idempotency.Request) { return func(r *idempotency.Request) { r.Path = s } }
	query := func(s string) func(*idempotency.Request) { return func(r *idempotency.Request) { r.Query = s } }
	media := func(s string) func(*idempotency.Request) {
		return func(r *idempotency.Request) { r.MediaType = s }
	}
	for name, p := range map[string]pair{
		"for the same request":              {body(`{"a":1}`), body(`{"a":1}`)},
		"with members in another order":     {body(`{"a":1,"b":2}`), body(`{"b":2,"a":1}`)},
		"with nested ones in another order": {body(`[{"a":{"x":1,"y":2}}]`), body(`[{"a":{"y":2,"x":1}}]`)},
		"with other white space":            {body(`{"a":[1,2]}`), body(" {\r\n\t\"a\" : [ 1 , 2 ] }\n")},
		"with a needless escape":            {body(`{"a":"b/é"}`), body(`{"\u0061":"\u0062\/\u00e9"}`)},
		"with a surrogate pair escaped":     {body(`"😀"`), body(`"\ud83d\ude00"`)},
		"with media type parameters":        {media("application/json"), media("application/json; charset=utf-8")},
		"with another media type case":      {media("application/json"), media("Application/JSON")},
		"with parameters in another order":  {query("a=1&b=2"), query("b=2&a=1")},
		"with the query encoded otherwise":  {query("a=x%20y&b=%7E"), query("b=~&a=x+y")},
		"with a needless percent-encoding":  {path("/a-b_c.d~e"), path("/%61%2Db%5Fc%2ed%7Ee")},
		"with one at the end of the path":   {path("/a~"), path("/a%7E")},
		"with another case of what is none": {media("application/json; bad"), media(" Application/JSON; bad")},
		"with lower-case percent-encoding":  {path("/a%2Fb"), path("/a%2fb")},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := basis(), basis()
			p.a(&a)
			p.b(&b)
			if a.Fingerprint() != b.Fingerprint() {
				t.Errorf("%+v and %+v have different fingerprints", a, b)
			}
		})
	}
}

func TestFingerprintDiffers(t *testing.T) {
	type request = idempotency.Request
	body := func(a, b string) [2]request {
		pair := [2]request{basis(), basis()}
		pair[0].Body, pair[1].Body = []byte(a), []byte(b)
		return pair
	}
	path := func(a, b string) [2]request {
		pair := [2]request{basis(), basis()}
		pair[0].Path, pair[1].Path = a, b
		return pair
	}
	query := func(a, b string) [2]request {
		pair := [2]request{basis(), basis()}
		pair[0].Query, pair[1].Query = a, b
		return pair
	}
	method := [2]request{basis(), basis()}
	method[1].Method = "PUT"
	media := [2]request{basis(), basis()}
	media[1].MediaType = "text/json"
	shifted := [2]request{{Method: "P", Path: "OST/a"}, {Method: "POST", Path: "/a"}}

	for name, pair := range map[string][2]request{
		"by method":                         method,
		"by media type":                     media,
		"by where one part ends":            shifted,
		"by path":                           path("/a", "/b"),
		"by the case of the path":           path("/a", "/A"),
		"by an encoded slash":               path("/a/b", "/a%2Fb"),
		"by an encoded percent sign":        path("/%61", "/%2561"),
		"by what is no percent-encoding":    path("/%zz", "/zz"),
		"by a percent sign at the end":      path("/a%", "/a"),
		"by half a percent-encoding":        path("/a%6", "/a6"),
		"by what decoding would make one":   path("/%%300", "/%00"),
		"by a trailing slash":               path("/a", "/a/"),
		"by a dot segment":                  path("/a", "/./a"),
		"by a query value":                  query("a=1", "a=2"),
		"by a query name":                   query("a=1", "b=1"),
		"by the order of one name's values": query("a=1&a=2", "a=2&a=1"),
		"by an absent parameter":            query("a=1&b=2", "a=1"),
		"by what is no query":               query("a=1;b=2", "b=2;a=1"),
		"by 2^53 and 2^53+1":                body(`{"n":9007199254740992}`, `{"n":9007199254740993}`),
		"by 1 and \"1\"":                    body(`{"n":1}`, `{"n":"1"}`),
		"by 1 and 1.0":                      body(`{"n":1}`, `{"n":1.0}`),
		"by 1e2 and 100":                    body(`{"n":1e2}`, `{"n":100}`),
		"by a long fraction":                body(`{"n":0.1}`, `{"n":0.1000000000000000055511151231257827}`),
		"by 0 and -0":                       body(`{"n":0}`, `{"n":-0}`),
		"by the order of an array":          body(`[1,2]`, `[2,1]`),
		"by null and absent":                body(`{"a":1,"b":null}`, `{"a":1}`),
		"by null and false":                 body(`{"a":null}`, `{"a":false}`),
		"by the case of a string":           body(`{"a":"x"}`, `{"a":"X"}`),
		"by white space within a string":    body(`{"a":"x y"}`, `{"a":"xy"}`),
		"by precomposed and combining":      body(`"é"`, `"e\u0301"`),
		"by an empty object and array":      body(`{}`, `[]`),
		"by a member's place":               body(`{"a":{"b":1}}`, `{"a":{},"b":1}`),
		"by no body and null":               body(``, `null`),
		"of duplicates, by which is last":   body(`{"a":1,"a":2}`, `{"a":2,"a":1}`),
		"of duplicates, from one of them":   body(`{"a":1,"a":2}`, `{"a":2}`),
		"of duplicates, by white space":     body(`{"a":1,"a":2}`, `{"a":1, "a":2}`),
		"of invalid JSON, by white space":   body(`{"a":1`, `{"a": 1`),
		"of two values, by white space":     body(`1 2`, `1  2`),
		"of lone surrogates":                body(`"\ud800"`, `"\ud801"`),
		"of a lone surrogate and U+FFFD":    body(`"\ud800"`, `"\ufffd"`),
		"of invalid UTF-8":                  body("\"\xff\"", "\"\xfe\""),
		"of form data, by order":            body(`a=1&b=2`, `b=2&a=1`),
	} {
		t.Run(name, func(t *testing.T) {
			if pair[0].Fingerprint() == pair[1].Fingerprint() {
				t.Errorf("%+v and %+v have the same fingerprint", pair[0], pair[1])
			}
		})
	}
}

func TestFingerprintDoesNotChangeTheBody(t *testing.T) {
	r := basis()
	r.Body = []byte(` {"b":1, "a":2} `)
	before := string(r.Body)
	r.Fingerprint()
	if string(r.Body) != before {
		t.Errorf("the body became %q", r.Body)
	}
}

// A record outlives the version that wrote it. If this test fails, either the
// change is a mistake or fingerprintVersion must change as well.
func TestFingerprintIsWhatItWasInEarlierVersions(t *testing.T) {
	got := basis().Fingerprint().String()
	const want = "01fe926d7cb4a3f9c92d8e014f031d20177e719e91ec50868493aaa89affd271ba"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
