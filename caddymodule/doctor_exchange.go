package caddymodule

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// exchanges are a doctor's conversations with an organisation's login service
// and API.
type exchanges struct {
	timeout    time.Duration
	api        http.RoundTripper // as the sidecar's own calls go
	configured bool              // api has options of a handler
	login      http.RoundTripper
	all        []*exchange
	close      func()
}

// exchange is a request and what came of it.
type exchange struct {
	host    string
	status  int // 0: there was no answer
	header  http.Header
	body    []byte // its first part
	err     error  // why there was no answer
	sent    time.Time
	ended   time.Time
	connect time.Duration // until there was a connection, TLS included; 0: one was there
	address string        // that it was made to
}

// maxExamined is how much of an answer's body is looked at, in bytes.
const maxExamined = 1 << 20

// do makes a request, without following redirects.
func (e *exchanges) do(ctx context.Context, by http.RoundTripper, method, target, token string) *exchange {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(withReplacer(ctx), method, target, nil)
	if err != nil {
		return &exchange{err: err}
	}
	req.Header.Set("Accept", "application/json")
	req.Header["Cdn-Loop"] = []string{loopMark}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: e.recorder(by), CheckRedirect: noRedirect}
	resp, err := client.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxExamined))
		_ = resp.Body.Close()
	}
	return e.all[len(e.all)-1]
}

// recorder records each exchange that goes through by.
func (e *exchanges) recorder(by http.RoundTripper) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		x := &exchange{host: req.URL.Hostname(), sent: time.Now()}
		e.all = append(e.all, x)
		trace := &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) {
				if !info.Reused {
					x.connect, x.address = time.Since(x.sent), info.Conn.RemoteAddr().String()
				}
			},
		}
		resp, err := by.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		x.ended = time.Now()
		if err != nil {
			x.err = err
			return nil, err
		}
		x.status, x.header = resp.StatusCode, resp.Header
		head, err := io.ReadAll(io.LimitReader(resp.Body, maxExamined))
		x.body = head
		if err != nil {
			_ = resp.Body.Close()
			x.status, x.err = 0, err
			return nil, err
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
		return resp, nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// withoutAnswer explains why target did not answer, and what to do. nameAdvice
// is about a name that does not exist.
func withoutAnswer(err error, target *url.URL, timeout time.Duration, nameAdvice string) (found, advice string) {
	host := target.Host
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fmt.Sprintf("there is no host %s", target.Hostname()), nameAdvice
		}
		return fmt.Sprintf("the name %s cannot be resolved: %v", target.Hostname(), dns), "check the resolver of this machine (/etc/resolv.conf) and its network"
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return withoutTrust(cert.Err, cert.UnverifiedCertificates, host)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return host + " does not speak TLS", "write http:// in place of https:// if that is meant, or mend the port"
	}
	var timed net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timed) && timed.Timeout():
		return fmt.Sprintf("%s does not answer within %v", host, timeout),
			"a firewall may drop what goes there: let this machine reach it, or name the way out (HTTPS_PROXY)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("%s refuses the connection (%v)", host, err), "check the address and the port, and that it runs"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Sprintf("there is no way to %s (%v)", host, err), "check this machine's network and routes"
	}
	return fmt.Sprintf("%s cannot be reached: %v", host, err), "check the address, this machine's network, and the way out (HTTPS_PROXY)"
}

func withoutTrust(err error, chain []*x509.Certificate, host string) (found, advice string) {
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the certificate of %s is not for that name: %v", host, name), "check region, api_url or login_url"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Sprintf("the certificate of %s is expired or not valid yet: %v", host, err), "check the clock of this machine first"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if len(chain) > 0 && strings.HasPrefix(chain[0].Issuer.CommonName, "Caddy Local Authority") {
			return fmt.Sprintf("%s has a certificate that Caddy made: the name may lead to the sidecar itself", host), loopRemedy
		}
		return fmt.Sprintf("the certificate of %s is of an authority that is not trusted here: %v", host, err),
			"a proxy that looks into TLS may have made it: add its authority to the system's, or name it (SSL_CERT_FILE; for the API also tls_trust_pool in transport http); " +
				"a container from scratch needs the authorities' certificates"
	}
	return fmt.Sprintf("the certificate of %s cannot be verified: %v", host, err), ""
}
