package caddymodule

import (
	"bytes"
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// FuzzCaddyfile puts arbitrary text into both blocks: it is an error, or a
// configuration that is the same each time and comes back from its JSON as it
// was.
func FuzzCaddyfile(f *testing.F) {
	for _, s := range [][2]string{
		{"", ""},
		{"region eu-west-1\nclient_id {env.ID}\nclient_secret {file./run/secret}\ncache 64MiB", "key header A B\nkey adopt 2m\nwait off"},
		{"api_url http://127.0.0.1:1/x\nlogin_url http://localhost\ncache off\nstore memory {\n max_size 3MiB\n}", "transport http {\n tls\n versions 1.1 2\n}"},
		{"store disk /tmp/x", "actions POST /a/*/b /c/*\nactions /d/{e}\nscope {a} {b}\ninject_key /a/0\nupstream_key honored\non_conflict new_key"},
		{"store redis redis://u:p@h rediss://h {\n lease 5s\n wait_replicas 1 1s\n tls_server_name h\n}", "retention 24h\nattempts 4\nbackoff 1s 2s\ntimeout 65s\ndeadline 2m"},
		{"store redis redis://h {\n password x\n prefix p\n}", "max_request_body 1MiB\nmax_response_body 2KB\ninvoke_endpoint /x custom_-_1\nheader_up X-Team blue"},
		{"cache 18446744073709551615", "lb_try_duration 1s\nhandle_response {\n respond 200\n}\nheader_down -Server"},
		{"region", "key hash 5m\nkey require"}, {"\"", "transport genesys {"}, {"}\n", "}\n respond 1"}, {"{", "key"}, {"store redis", "to x"},
		{"region \"a b\" # c", "key json /~\nwait 1d"}, {"client_id a\\\n b", "transport http\ntransport http"}, {"client_secret `a\nb`", "scope"},
		{"store", "@x path /y\nkey header"}, {"login_url", "invoke_endpoint x"}, {"store memory {", "header_up"}, {"store disk {\n}", "actions get /x"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, global, block string) {
		if text := global + block; strings.Contains(text, "import") || strings.Contains(text, "{$") || strings.Contains(text, "<<") {
			t.Skip() // these are Caddy's, and may read files
		}
		input := []byte("{\n\tgenesys {\n" + global + "\n\t}\n}\n:80 {\n\tgenesys_cloud {\n" + block + "\n\t}\n}\n")
		out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(input, map[string]any{"filename": "Caddyfile"})
		again, _, errAgain := caddyconfig.GetAdapter("caddyfile").Adapt(input, map[string]any{"filename": "Caddyfile"})
		if (err == nil) != (errAgain == nil) || !bytes.Equal(out, again) {
			t.Fatalf("it adapts to\n%s, %v\nand then to\n%s, %v", out, err, again, errAgain)
		}
		if err != nil {
			return
		}
		var config struct {
			Apps struct {
				Genesys json.RawMessage `json:"genesys"`
				HTTP    caddyhttp.App   `json:"http"`
			} `json:"apps"`
		}
		if err := json.Unmarshal(out, &config); err != nil {
			t.Fatalf("it adapts to what is no configuration: %v\n%s", err, out)
		}
		comesBack(t, config.Apps.Genesys, new(App))
		for _, server := range config.Apps.HTTP.Servers {
			for _, route := range server.Routes {
				for _, handler := range route.HandlersRaw {
					if name, fields := inlineKey(t, handler, "handler"); name == "genesys_cloud" {
						h := new(Handler)
						comesBack(t, fields, h)
						if h.TransportRaw != nil {
							_, fields := inlineKey(t, h.TransportRaw, "protocol")
							comesBack(t, fields, new(Transport))
						}
					}
				}
			}
		}
	})
}

// inlineKey takes the name of a module out of its configuration.
func inlineKey(t *testing.T, raw json.RawMessage, key string) (name string, rest json.RawMessage) {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(fields[key], &name); err != nil {
		t.Fatalf("%s has no %s: %v", raw, key, err)
	}
	delete(fields, key)
	rest, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return name, rest
}

// comesBack reads raw into v, as strictly as Caddy does, and checks that
// writing v again makes the same of it.
func comesBack(t *testing.T, raw json.RawMessage, v any) {
	t.Helper()
	if raw == nil {
		return
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		t.Fatalf("reading %s: %v", raw, err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal(raw, &a) != nil || json.Unmarshal(again, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Fatalf("%s comes back as %s", raw, again)
	}
}

// secretOptions are where a secret may stand in the Caddyfile, as SECRET.
var secretOptions = []string{
	"client_secret SECRET",
	"store redis redis://h {\npassword SECRET\n}",
	"store redis redis://h {\nsentinel_password SECRET\n}",
	"store redis redis://h {\npassword SECRET\npassword SECRET\n}",
	"store redis redis://u:SECRET@h",
	"store redis redis://u:SECRET@h:1 redis://u:SECRET@h:2 {\n}",
	"api_url http://u:SECRET@h",
	"login_url https://u:SECRET@h/x",
}

// FuzzCaddyfileErrorsRepeatNoSecret puts arbitrary text in a secret's place, as
// one does by mistake.
func FuzzCaddyfileErrorsRepeatNoSecret(f *testing.F) {
	for _, text := range []string{"hunter2", "a hunter2", "\"hunter2", "\"a\" hunter2 b", "hunter2 {", "%hunter2", "hunter2 # c", "?hunter2", "hunter2@", "/hunter2", ":hunter2", "`hunter2", "hunter2 }", "{hunter2", "{ hunter2", "\\hunter2"} {
		for i := range secretOptions {
			f.Add(text, byte(i))
		}
	}
	f.Fuzz(func(t *testing.T, text string, which byte) {
		const secret = "hunter2"
		if strings.ContainsAny(text, "\n\r") || strings.Contains(text, "<<") || strings.Contains(text, "{$") || !strings.Contains(text, secret) {
			t.Skip() // behind the end of a line it is not in a secret's place
		}
		line := strings.ReplaceAll(secretOptions[int(which)%len(secretOptions)], "SECRET", text)
		input := "{\n\tgenesys {\n" + line + "\n\t}\n}\n:80 {\n\tgenesys_cloud\n}\n"
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("the mistake in %q is told with the secret: %v", line, err)
		}
	})
}

// FuzzQueryOfAnAction: flatten=false, which is the default, makes no difference
// where nothing else is said of flatten; all else does.
func FuzzQueryOfAnAction(f *testing.F) {
	for _, query := range []string{"", "flatten=true", "flatten=false", "a=1&b=2", "flatten=fals%65", "Flatten=false", "xflatten=false", "a;b", "%zz", "&", "a=flatten=false", "flatten", "flatten=false&a"} {
		for _, other := range []string{"flatten=false", "flatten=true&flatten=false", "flatten=false&flatten=true", "a=1&flatten=false&b=2", "%zz&flatten=false"} {
			f.Add(query, other, byte(len(query)))
		}
	}
	f.Fuzz(func(t *testing.T, a, b string, at byte) {
		same := func(a, b string) bool {
			request := func(query string) *action {
				return &action{method: "POST", url: &url.URL{Path: "/x", RawQuery: query}}
			}
			return request(a).request().Fingerprint() == request(b).request().Fingerprint()
		}
		valuesA, errA := url.ParseQuery(a)
		valuesB, errB := url.ParseQuery(b)
		if errA == nil && errB == nil && same(a, b) && !slices.Equal(meant(valuesA), meant(valuesB)) {
			t.Fatalf("%q and %q are the same, but mean %v and %v", a, b, valuesA, valuesB)
		}
		if errA != nil || valuesA.Has("flatten") {
			return
		}
		parts := strings.Split(a, "&")
		parts = slices.Insert(parts, int(at)%(len(parts)+1), "flatten=false")
		if with := strings.Join(parts, "&"); !same(a, with) {
			t.Fatalf("%q and %q differ", a, with)
		}
	})
}

// meant is what an upstream makes of a query.
func meant(values url.Values) []string {
	var all []string
	if !slices.ContainsFunc(values["flatten"], func(v string) bool { return v != "false" }) {
		delete(values, "flatten")
	}
	for name, values := range values {
		all = append(all, strings.Join(append([]string{name}, values...), "\x00"))
	}
	slices.Sort(all)
	return all
}
