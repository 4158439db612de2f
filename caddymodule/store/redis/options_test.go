package redis

import (
	"slices"
	"strings"
	"testing"
)

func TestURLsLeadToAnEndpoint(t *testing.T) {
	for _, test := range []struct {
		urls      string
		addresses string
		database  int
		user      string
		master    string
		tls       bool
	}{
		{urls: "redis://localhost", addresses: "localhost:6379"},
		{urls: "redis://localhost/", addresses: "localhost:6379"},
		{urls: "valkey://10.0.0.1:7000/3", addresses: "10.0.0.1:7000", database: 3},
		{urls: "redis://[::1]", addresses: "[::1]:6379"},
		{urls: "rediss://app:pw@redis.example.com:6380", addresses: "redis.example.com:6380", user: "app", tls: true},
		{urls: "redis://:pw@a redis://:pw@b:1", addresses: "a:6379 b:1"},
		{urls: "redis://a?master_set=calls redis://b?master_set=calls", addresses: "a:6379 b:6379", master: "calls"},
		{urls: "unix:///run/redis.sock?db=2", addresses: "/run/redis.sock", database: 2},
	} {
		e, err := ParseURLs(strings.Fields(test.urls))
		if err != nil {
			t.Errorf("%s: %v", test.urls, err)
			continue
		}
		if got := e.Addresses(); !slices.Equal(got, strings.Fields(test.addresses)) {
			t.Errorf("%s: addresses %q, want %s", test.urls, got, test.addresses)
		}
		if e.Database() != test.database || e.User() != test.user || e.MasterSet() != test.master || e.TLS() != test.tls {
			t.Errorf("%s: database %d, user %q, master set %q, TLS %t", test.urls, e.Database(), e.User(), e.MasterSet(), e.TLS())
		}
	}
}

func TestAWrongURLIsRefusedWithoutItsPassword(t *testing.T) {
	for urls, want := range map[string]string{
		"":                                      "there is none",
		"localhost:6379":                        "no URL",
		"127.0.0.1:6379":                        "no URL",
		"hunter2:word@host":                     "no URL",
		"http://localhost":                      "scheme",
		"redis://":                              "no host",
		"redis://:hunter2@":                     "no host",
		"redis://u:hunter2@h:port":              "no URL",
		"redis://u:hunter2/word@h":              "no URL",
		"redis://u:word%hunter2@h":              "no URL",
		"redis://u:word#hunter2@h":              "no URL",
		"redis://u:word?hunter2@h":              "no URL",
		"redis://u:hunter2@h?hunter2=1":         "parameter",
		"redis://u:hunter2@h/one":               "database number",
		"redis://u:p@h/hunter2@h":               "database number",
		"redis://u:hunter2@h/1/2":               "database number",
		"redis://u:hunter2@h?max_retries=3":     "parameter",
		"redis://u:hunter2@a redis://u:other@b": "differs from the first",
		"redis://a rediss://b":                  "differs from the first",
		"unix://":                               "no path",
		"unix:///a?db=hunter2":                  "database number",
		"unix:///a unix:///b":                   "sockets",
	} {
		_, err := ParseURLs(strings.Fields(urls))
		switch {
		case err == nil:
			t.Errorf("%q was taken", urls)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v, want %q", urls, err, want)
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%q: %v has the password", urls, err)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	e, err := ParseURLs([]string{"redis://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"no address": {},
		"how long":   {Endpoint: e, WaitReplicas: 1},
		"too short":  {Endpoint: e, Lease: 1},
	} {
		if s, err := Open(o); err == nil {
			_ = s.Close()
			t.Errorf("%+v was taken", o)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
