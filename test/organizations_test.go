package test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// acme is a request to the second organisation, which sits behind the default
// one's address here and is chosen by a header.
func acme(r request) request {
	r.header = append(r.header[:len(r.header):len(r.header)], "X-Organization", "acme")
	return r
}

// newAcme starts a sandbox of a second organisation, and returns what the
// sidecar in front of both has to be told of it. Its secret is in a file.
func newAcme(t *testing.T, cfg sandbox.Config) (p *platform, o options, secretFile string) {
	t.Helper()
	cfg.ClientID = "acme"
	p = newPlatform(t, cfg)
	secretFile = filepath.Join(t.TempDir(), "secret")
	writeFile(t, secretFile, secret)
	return p, options{
		global: `organization acme {
			api_url ` + p.url + `
			client_id acme
			client_secret {file.` + secretFile + `}
		}`,
		site: `@acme header X-Organization acme
	handle @acme {
		genesys_cloud {
			organization acme
		}
	}`,
	}, secretFile
}

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheSameKeyInTwoOrganisationsIsTwoCalls(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	other, o, _ := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	call := keyed(1)
	first, acmes := s.send(t, call), s.send(t, acme(call))
	if first.status != 200 || acmes.status != 200 || acmes.replayed() || acmes.body == first.body {
		t.Errorf("the default one's %+v, acme's %+v", first, acmes)
	}
	if a := s.send(t, call); !a.replayed() || a.body != first.body {
		t.Errorf("the default one's repeat: %+v", a)
	}
	if a := s.send(t, acme(call)); !a.replayed() || a.body != acmes.body {
		t.Errorf("acme's repeat: %+v", a)
	}
	p.wantEffects(t, 1)
	other.wantEffects(t, 1)
}

func TestWhatIsProxiedGoesToTheOrganisationItIsFor(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	other, o, _ := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	if a := s.send(t, acme(request{method: http.MethodGet, path: "/api/v2/users/me"})); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	if mine, acmes := p.Summary().TokensIssued, other.Summary().TokensIssued; mine != 0 || acmes != 1 {
		t.Errorf("the default one issued %d tokens, acme %d", mine, acmes)
	}
}

func TestAPausedOrganisationPausesNoOther(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	_, o, _ := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	limited := keyed(1)
	limited.header = append(limited.header, "Sandbox-Fault", "429=3600; times=1")
	if a := s.send(t, acme(limited)); a.status != 429 {
		t.Fatalf("acme's call: %+v", a)
	}
	if a := s.send(t, acme(keyed(2))); a.status != 429 || !strings.Contains(a.body, "rate.limited") {
		t.Errorf("acme's next call: %+v", a)
	}
	if a := s.send(t, keyed(2)); a.status != 200 {
		t.Errorf("the default organisation's: %+v", a)
	}
}

func TestASecretIsRotatedForOneOrganisationAlone(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	other, o, file := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	s.send(t, keyed(1))
	s.send(t, acme(keyed(1)))
	other.control(t, "PUT", "/sandbox/client", `{"secret":"rotated"}`)
	other.control(t, "POST", "/sandbox/tokens/revoke", "")
	writeFile(t, file, "rotated\n")
	if a := s.send(t, acme(keyed(2))); a.status != 200 {
		t.Errorf("acme's, after the rotation: %+v", a)
	}
	if a := s.send(t, keyed(2)); a.status != 200 {
		t.Errorf("the default organisation's: %+v", a)
	}
	if n := p.Summary().TokenRequests; n != 1 {
		t.Errorf("the default organisation's token was asked for %d times", n)
	}
}

func TestAReloadKeepsTheTokenOfEachOrganisation(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	other, o, _ := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	for i := range 3 {
		for _, call := range []request{keyed(i), acme(keyed(i))} {
			if a := s.send(t, call); a.status != 200 {
				t.Errorf("got %+v", a)
			}
		}
		s.reload(t)
	}
	if mine, acmes := p.Summary().TokensIssued, other.Summary().TokensIssued; mine != 1 || acmes != 1 {
		t.Errorf("the default one issued %d tokens, acme %d", mine, acmes)
	}
}

func TestARejectedReloadChangesNoOrganisationsSecret(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	other, o, file := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	good, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), "{file."+file+"}", "wrong", 1) +
		"http://" + strings.TrimPrefix(p.url, "http://") + " {\n\tbind 127.0.0.1\n\trespond ok\n}\n"
	writeFile(t, s.config(), bad)
	if out, err := s.command("reload", "--config", s.config(), "--adapter", "caddyfile", "--address", s.admin, "--force").CombinedOutput(); err == nil {
		t.Fatalf("the reload was accepted: %s", out)
	}
	other.control(t, "POST", "/sandbox/tokens/revoke", "")
	if a := s.send(t, acme(keyed(1))); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}

// TestWhichOrganisationIsMeantIsNeverGuessed checks what is said of
// configurations that do not tell.
func TestWhichOrganisationIsMeantIsNeverGuessed(t *testing.T) {
	t.Parallel()
	const (
		acme = "organization acme {\nregion mypurecloud.de\nclient_id a\nclient_secret {env.SECRET}\n}\n"
		beta = "organization beta {\nregion mypurecloud.de\nclient_id a\nclient_secret {env.SECRET}\n}\n"
	)
	for name, c := range map[string]struct{ global, block, want string }{
		"none is the default":            {acme, "", "must name one of: acme"},
		"one of several is named":        {acme, "organization acme", ""},
		"the default lacks its client":   {"region mypurecloud.ie\n" + acme, "", "client_id of that is empty"},
		"two are the same":               {acme + beta, "organization acme", "organization beta: it has the same API and the same client as organization acme"},
		"a secret is empty":              {strings.Replace(acme, "env.SECRET", "env.NOTHING", 1), "organization acme", "organization acme: the OAuth client's secret is empty"},
		"the default is written out":     {"region {env.GENESYSCLOUD_REGION}\nclient_id a\nclient_secret {env.SECRET}\n", "", ""},
		"the region stands for nothing":  {"region {env.NOTHING}\nclient_id a\nclient_secret {env.SECRET}\n", "", "reading region: its placeholder stands for nothing"},
		"the API stands for nothing":     {"api_url {env.NOTHING}\nclient_id a\nclient_secret {env.SECRET}\n", "", "reading api_url: its placeholder stands for nothing"},
		"the halves are of two":          {acme, "organization acme\ntransport genesys {\norganization acne\n}", "it has acme"},
		"the transport is another's too": {acme + strings.Replace(beta, "client_id a", "client_id b", 1), "organization acme\ntransport genesys {\norganization beta\n}", "it is one to organization beta, the handler is for organization acme"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			config := filepath.Join(dir, "Caddyfile")
			writeFile(t, config, "{\n\tadmin off\n\tgenesys {\n\t\tstore memory\n"+c.global+"\n}\n}\nhttp://127.0.0.1:1 {\n\tgenesys_cloud {\n"+c.block+"\n}\n}\n")
			cmd := exec.Command(binary, "validate", "--config", config, "--adapter", "caddyfile")
			cmd.Env = []string{"XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "HOME=" + dir, "SECRET=" + secret}
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.want == "") || !strings.Contains(string(out), c.want) {
				t.Errorf("got %v: %s", err, out)
			}
		})
	}
}
