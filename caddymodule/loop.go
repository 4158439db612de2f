package caddymodule

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"genesys-sidecar/caddymodule/genesys"
)

// Where the platform's own names lead to the sidecar, so that an app needs no
// change, a sidecar that looks them up as the app does sends its requests to
// itself, again and again. CDN-Loop (RFC 8586) is the header made to notice
// that: servers that do not know it let it pass, whereas Via, which Caddy sends
// as well, names all Caddys alike and has some servers stop compressing.

// loopName is the sidecar's name in CDN-Loop.
const loopName = "genesys-sidecar"

// maxSidecars is how many sidecars a request may have passed. One in front of
// another makes sense; a request that wanders through a fleet never ends well.
const maxSidecars = 3

// loopMark is what this process adds to CDN-Loop.
var loopMark = func() string {
	var id [8]byte
	rand.Read(id[:]) // never fails
	return loopName + "; id=" + hex.EncodeToString(id[:])
}()

// onlyLoopMark is a CDN-Loop of a request that has passed nobody else.
var onlyLoopMark = []string{loopMark}

// marked returns header's values of CDN-Loop with this process' own. It does not
// change header, whose values may be shared, nor may what it returns be changed.
func marked(header http.Header) []string {
	if values := header["Cdn-Loop"]; len(values) > 0 {
		return append(values[:len(values):len(values)], loopMark)
	}
	return onlyLoopMark
}

// loops tells whether a request with header was sent by this process, or has
// passed too many sidecars.
func loops(header http.Header) bool {
	passed := 0
	for _, value := range header["Cdn-Loop"] {
		if strings.Contains(value, loopMark) {
			return true
		}
		for one := range strings.SplitSeq(value, ",") {
			name, _, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), loopName) {
				passed++
			}
		}
	}
	return passed >= maxSidecars
}

const (
	loopRemedy = "Have the sidecar look that name up elsewhere: transport http { resolvers … } in genesys_cloud for the API, login_transport http { resolvers … } in the global option genesys for the login service."
	loopDetail = "The request has come back to a sidecar that it has passed: a name that is to lead to Genesys Cloud leads to the sidecar itself. " + loopRemedy
)

// errLoop refuses a request that loops.
var errLoop = &problemError{slug: slugLoopDetected, outcome: outcomeNotExecuted, detail: loopDetail}

// loginLoop is what a login request that loops is answered, in the words of
// OAuth (RFC 6749, 5.2): it is the sidecar's own, which reads and logs them.
const loginLoop = `{"error":"loop_detected","error_description":"the login service's name leads to the sidecar itself; give the genesys option a login_transport http { resolvers … } that knows the real address"}` + "\n"

func serveLoginLoop(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusLoopDetected)
	_, err := w.Write([]byte(loginLoop))
	return err
}

// explainLoop adds to err what its cause may be if the server's certificate is
// one that Caddy made: the sidecar has most likely reached itself.
func explainLoop(err error) error {
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) || len(unverified.UnverifiedCertificates) == 0 ||
		!strings.HasPrefix(unverified.UnverifiedCertificates[0].Issuer.CommonName, "Caddy Local Authority") {
		return err
	}
	return fmt.Errorf("%w (the certificate is one that Caddy made: does the name lead to the sidecar itself? %s)", err, loopRemedy)
}

// loginTransport sends an organisation's token requests by the way that the
// configuration of the moment says.
type loginTransport struct {
	org   *org
	plain http.RoundTripper // where it says nothing
}

// RoundTrip implements http.RoundTripper.
func (t loginTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	rt := t.plain
	if a := t.org.access.Load(); a != nil && a.transport != nil {
		rt = a.transport
	}
	req = req.Clone(withReplacer(req.Context()))
	req.Header["Cdn-Loop"] = []string{loopMark}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, explainLoop(err)
	}
	return resp, nil
}

func newLoginTransport(o *org) loginTransport {
	return loginTransport{o, genesys.NewTokenTransport()}
}
