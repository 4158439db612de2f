package genesys

import (
	"net/url"
	"strings"
	"testing"
)

func TestEndpointsKnowEveryPublishedRegion(t *testing.T) {
	if got := len(Regions()); got != 18 {
		t.Errorf("%d regions, want 18", got)
	}
	for name, domain := range domains {
		for _, spelling := range []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), domain} {
			api, login, err := Endpoints(spelling)
			if err != nil {
				t.Errorf("Endpoints(%q): %v", spelling, err)
				continue
			}
			if want := "https://api." + domain; api.String() != want {
				t.Errorf("Endpoints(%q): api %s, want %s", spelling, api, want)
			}
			if want := "https://login." + domain + "/oauth/token"; TokenURL(login) != want {
				t.Errorf("Endpoints(%q): token URL %s, want %s", spelling, TokenURL(login), want)
			}
			if derived := LoginURL(api); derived.String() != login.String() {
				t.Errorf("LoginURL(%s) = %s, want %s", api, derived, login)
			}
		}
	}
}

func TestEndpointsAcceptDomains(t *testing.T) {
	for _, tt := range []struct{ in, api string }{
		{"mypurecloud.ie", "https://api.mypurecloud.ie"},
		{" MyPureCloud.IE\n", "https://api.mypurecloud.ie"},
		{"api.mypurecloud.ie", "https://api.mypurecloud.ie"},
		{"mypurecloud.ie.", "https://api.mypurecloud.ie"},
		{"use2.us-gov-pure.cloud", "https://api.use2.us-gov-pure.cloud"},
		{"xyz9.pure.cloud", "https://api.xyz9.pure.cloud"},
	} {
		api, _, err := Endpoints(tt.in)
		if err != nil || api.String() != tt.api {
			t.Errorf("Endpoints(%q) = %v, %v; want %s", tt.in, api, err, tt.api)
		}
	}
}

func TestEndpointsRefuseWhatIsNoRegion(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "empty"},
		{"eu-west-9", "eu-west-1"}, // the known ones are listed
		{"ireland", "eusc-de-east-1"},
		{"localhost", "us-east-1"},
		{"127.0.0.1", "api_url"},
		{"mypurecloud.ie:8080", "api_url"},
		{"https://api.mypurecloud.ie", "api_url"},
		{"mypurecloud.ie/api", "api_url"},
		{"user@mypurecloud.ie", "not a domain"},
		{"-a.pure.cloud", "not a domain"},
		{"a..pure.cloud", "not a domain"},
		{strings.Repeat("a.", 130) + "cloud", "not a domain"},
	} {
		api, login, err := Endpoints(tt.in)
		if err == nil {
			t.Errorf("Endpoints(%q) = %v, %v, want an error", tt.in, api, login)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Endpoints(%q): %q does not say %q", tt.in, err, tt.want)
		}
	}
}

func TestParseURLNormalises(t *testing.T) {
	for in, want := range map[string]string{
		"https://api.mypurecloud.ie":      "https://api.mypurecloud.ie",
		"https://API.mypurecloud.ie/":     "https://api.mypurecloud.ie",
		" http://127.0.0.1:8080 ":         "http://127.0.0.1:8080",
		"http://[::1]:8080/gw/genesys//":  "http://[::1]:8080/gw/genesys",
		"https://gw.example.com:":         "https://gw.example.com",
		"HTTPS://gw.example.com/a%2Fb/":   "https://gw.example.com/a%2Fb",
		"https://gw.example.com/platform": "https://gw.example.com/platform",
	} {
		u, err := ParseURL(in)
		if err != nil || u.String() != want {
			t.Errorf("ParseURL(%q) = %v, %v; want %s", in, u, err, want)
		}
	}
}

func TestParseURLRefusesAndDoesNotRepeat(t *testing.T) {
	for _, in := range []string{
		"", "127.0.0.1:8080", "localhost:8080", "//host", "/path", "ftp://host",
		"https://", "https://:8080", "http://host:0", "http://host:65536",
		"http://host?q=hunter2", "http://host?", "http://host#", "http://host/#hunter2",
		"https://user:hunter2@host", "https://user:hunter2%zz@host",
	} {
		u, err := ParseURL(in)
		if err == nil {
			t.Errorf("ParseURL(%q) = %v, want an error", in, u)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseURL(%q): the error repeats a secret: %v", in, err)
		}
	}
}

func TestLoginURLIsTheSameHostUnlessItsNameBeginsWithAPI(t *testing.T) {
	for in, want := range map[string]string{
		"https://api.mypurecloud.ie":     "https://login.mypurecloud.ie/oauth/token",
		"http://api.localtest:8080/gw":   "http://login.localtest:8080/gw/oauth/token",
		"http://127.0.0.1:8080":          "http://127.0.0.1:8080/oauth/token",
		"https://gateway.example.com/gc": "https://gateway.example.com/gc/oauth/token",
	} {
		api, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := TokenURL(LoginURL(api)); got != want {
			t.Errorf("token URL for %s = %s, want %s", in, got, want)
		}
		if api.String() != in {
			t.Errorf("LoginURL changed its argument to %s", api)
		}
	}
}
