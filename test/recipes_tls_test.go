package test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"genesys-sidecar/caddymodule/sandbox"
)

// authority is a certificate authority that a test makes.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // the certificate, in PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "a test's authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, key := a.sign(t, template)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	writeFile(t, a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// sign returns a certificate for a new key; one without a parent signs itself.
func (a *authority) sign(t *testing.T, template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue returns a certificate of name, for servers and clients.
func (a *authority) issue(t *testing.T, name string, hosts ...string) tls.Certificate {
	t.Helper()
	der, key := a.sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pool returns the certificates in file.
func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %s", file)
	}
	return p
}

// localRoot is the root of the sidecar's own authority, for tls internal.
func (s *sidecar) localRoot() string {
	return filepath.Join(s.dir, "caddy", "pki", "authorities", "local", "root.crt")
}

// awaitCertificates waits until the sidecar has certificates of its own for
// hosts, which it makes once it runs.
func (s *sidecar) awaitCertificates(t *testing.T, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		waitFor(t, func() bool {
			conn, err := tls.Dial("tcp", s.address, &tls.Config{ServerName: host, InsecureSkipVerify: true}) //nolint:gosec // whether there is one, not whose
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
	}
}

// resolver is a DNS server on loopback that leads every name there.
type resolver struct {
	address string
	mu      sync.Mutex
	asked   map[string]bool
}

func newResolver(t *testing.T) *resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &resolver{address: conn.LocalAddr().String(), asked: make(map[string]bool)}
	server := &dns.Server{PacketConn: conn, Handler: r}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return r
}

// ServeDNS implements dns.Handler.
func (r *resolver) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	m := new(dns.Msg).SetReply(query)
	q := query.Question[0]
	r.mu.Lock()
	r.asked[q.Name] = true
	r.mu.Unlock()
	if q.Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
			A:   net.IPv4(127, 0, 0, 1),
		}}
	}
	_ = w.WriteMsg(m)
}

func (r *resolver) wasAsked(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[name]
}

const (
	apiHost   = "api.mypurecloud.test"
	loginHost = "login.mypurecloud.test"
)

// newTLSPlatform is newPlatform by the platform's own names, with a certificate
// of ca. No resolver but a test's own knows them.
func newTLSPlatform(t *testing.T, ca *authority) *platform {
	t.Helper()
	s, err := sandbox.New(sandbox.Config{ClientSecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = s.Server()
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "the platform", apiHost, loginHost)}}
	server.StartTLS()
	t.Cleanup(func() {
		_ = s.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return &platform{s, "https://" + apiHost + ":" + port(strings.TrimPrefix(server.URL, "https://"))}
}

// newNoChange starts the recipe for an app that is not changed at all.
func newNoChange(t *testing.T, p *platform, trusted string) (*sidecar, *resolver) {
	t.Helper()
	dns := newResolver(t)
	s := newRecipe(t, p, "no-change",
		"GENESYSCLOUD_REGION=mypurecloud.test",
		"GENESYS_SIDECAR_RESOLVERS="+dns.address,
		"SSL_CERT_FILE="+trusted, // as the system's authorities
		"SSL_CERT_DIR="+t.TempDir())
	s.env = append(s.env, "GENESYS_SIDECAR_HTTPS_PORT="+port(s.address))
	return s, dns
}

// app returns the client of an app that knows nothing but the platform's URLs,
// and whose machine leads them to the sidecar.
func (s *sidecar) app(t *testing.T) *http.Client {
	t.Helper()
	s.awaitCertificates(t, apiHost, loginHost)
	client := &http.Client{Transport: &http.Transport{
		DialContext:     dialOnly(s.address),
		TLSClientConfig: &tls.Config{RootCAs: pool(t, s.localRoot())},
	}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func post(t *testing.T, client *http.Client, url, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.GetBody = nil // no client can send it twice by itself
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, readAll(t, resp.Body)}
}

func TestRecipeNoChange(t *testing.T) {
	ca := newAuthority(t)
	p := newTLSPlatform(t, ca)
	s, resolver := newNoChange(t, p, ca.file)
	s.run(t)
	app := s.app(t)

	login := post(t, app, "https://"+loginHost+"/oauth/token", "grant_type=client_credentials",
		"Content-Type", "application/x-www-form-urlencoded", "Authorization", "Basic b2xkOmNyZWRlbnRpYWxz")
	if login.status != 200 || !strings.Contains(login.body, "access_token") {
		t.Fatalf("the login: %+v", login)
	}
	call := func() answer {
		return post(t, app, "https://"+apiHost+execute, `{"order":17}`,
			"Authorization", "Bearer genesys-sidecar", "Idempotency-Key", "order-17")
	}
	first, again := call(), call()
	if first.status != 200 || first.replayed() || !again.replayed() || again.body != first.body {
		t.Errorf("first %+v, again %+v\n%s", first, again, s.log(t))
	}
	p.wantEffects(t, 1)
	for _, host := range []string{apiHost, loginHost} {
		if !resolver.wasAsked(host + ".") {
			t.Errorf("the resolver was not asked for %s", host)
		}
	}
	if n := p.Summary().TokenRequests; n != 1 {
		t.Errorf("the real login service got %d requests", n)
	}
}

// TestRecipeNoChangeWithoutResolvers has the names lead to the sidecar for the
// sidecar, too, as without resolvers they would.
func TestRecipeNoChangeWithoutResolvers(t *testing.T) {
	ca := newAuthority(t)
	s, _ := newNoChange(t, &platform{}, ca.file)
	s.platform.url = "https://" + apiHost + ":" + port(s.address)
	s.run(t)
	if a := post(t, s.app(t), "https://"+apiHost+execute, `{}`); a.status != 503 || !strings.Contains(a.body, "token.unavailable") {
		t.Errorf("got %+v", a)
	}
	if log := s.log(t); !strings.Contains(log, "the certificate is one that Caddy made") || !strings.Contains(log, "login_transport") {
		t.Errorf("the log does not tell what is wrong: %s", log)
	}

	// The same on a machine that trusts the sidecar's certificates.
	s.stop(t)
	s.env = append(s.env, "SSL_CERT_FILE="+s.localRoot())
	s.start(t)
	post(t, s.app(t), "https://"+apiHost+execute, `{}`)
	if log := s.log(t); !strings.Contains(log, "loop_detected") {
		t.Errorf("the log does not tell of a loop: %s", log)
	}
}

func TestRecipeMTLS(t *testing.T) {
	callers := newAuthority(t)
	p := newPlatform(t, sandbox.Config{})
	s := newRecipe(t, p, "mtls", "CALLERS_CA="+callers.file).run(t)
	s.awaitCertificates(t, "localhost")

	caller := func(certificates ...tls.Certificate) *http.Client {
		client := &http.Client{Transport: &http.Transport{
			DialContext:     dialOnly(s.address),
			TLSClientConfig: &tls.Config{RootCAs: pool(t, s.localRoot()), Certificates: certificates},
		}}
		t.Cleanup(client.CloseIdleConnections)
		return client
	}
	url := "https://localhost:" + port(s.address) + execute
	billing, support := caller(callers.issue(t, "billing")), caller(callers.issue(t, "support"))
	first, other := post(t, billing, url, `{}`, "Idempotency-Key", "k"), post(t, support, url, `{}`, "Idempotency-Key", "k")
	if first.status != 200 || other.status != 200 || other.replayed() || other.body == first.body {
		t.Errorf("the callers got %+v and %+v", first, other)
	}
	renewed := caller(callers.issue(t, "billing"))
	if a := post(t, renewed, url, `{}`, "Idempotency-Key", "k"); !a.replayed() || a.body != first.body {
		t.Errorf("a repeat with a renewed certificate: %+v", a)
	}
	p.wantEffects(t, 2)

	for name, client := range map[string]*http.Client{
		"no certificate":                    caller(),
		"a certificate of another's making": caller(newAuthority(t).issue(t, "billing")),
	} {
		resp, err := client.Post(url, "application/json", strings.NewReader(`{}`))
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s: it was answered %d", name, resp.StatusCode)
		}
	}
	p.wantEffects(t, 2)
}
