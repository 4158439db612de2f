package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// upstreamCommand makes this program the upstream instead: it is a process of
// its own, so that its work is nobody else's.
const upstreamCommand = "upstream"

// The upstream is controlled by GET requests to these paths.
const (
	sizePath  = "/control/size"  // ?n=<bytes>: of an answer's body
	delayPath = "/control/delay" // ?n=<milliseconds>: before an answer
	countPath = "/control/count" // answers how often something was executed
)

// platform is what the upstream remembers.
type platform struct {
	size, delay, executions atomic.Int64
	text                    []byte
}

// poolSize is how much text answers are cut from. Each is cut elsewhere, so
// that a database that compresses does not find the last one in the next.
const poolSize = 8 << 20

// serveUpstream plays the platform at address: it hands out tokens, and answers
// everything else at once. It does so at secured too, by TLS and HTTP/1.1 or 2.
func serveUpstream(address, secured string) error {
	u := &platform{text: randomText(poolSize)}
	u.size.Store(answerSize)
	ended := make(chan error)
	go func() { ended <- u.serveTLS(secured) }()
	s := &fasthttp.Server{Handler: u.handle, NoDefaultServerHeader: true, MaxRequestBodySize: 1 << 20}
	go func() { ended <- s.ListenAndServe(address) }()
	return fmt.Errorf("serving the upstream: %w", <-ended)
}

// serveTLS serves data actions at address.
func (u *platform) serveTLS(address string) error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	s := &http.Server{
		Addr:      address,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			text := u.execute()
			w.Header().Set("Content-Length", strconv.Itoa(len(text)+len(`[""]`)))
			_, _ = fmt.Fprintf(w, `["%s"]`, text)
		}),
	}
	return s.ListenAndServeTLS("", "")
}

// selfSigned returns a certificate that nobody trusts.
func selfSigned() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}

func (u *platform) handle(ctx *fasthttp.RequestCtx) {
	path := ctx.Path()
	if bytes.HasPrefix(path, []byte("/control/")) {
		u.control(ctx, string(path))
		return
	}
	ctx.Response.Header.SetContentType("application/json")
	if string(path) == "/oauth/token" {
		ctx.SetBodyString(`{"access_token":"bench","token_type":"bearer","expires_in":86400}`)
		return
	}
	text := u.execute()
	ctx.Response.AppendBodyString(`["`)
	ctx.Response.AppendBody(text)
	ctx.Response.AppendBodyString(`"]`)
}

// execute counts an execution, and returns what is between `["` and `"]` in its
// answer.
func (u *platform) execute() []byte {
	n := u.executions.Add(1)
	if delay := time.Duration(u.delay.Load()); delay > 0 {
		time.Sleep(delay)
	}
	size := int(u.size.Load())
	from := int(uint64(n) * 7919 % uint64(poolSize-size))
	return u.text[from : from+size-len(`[""]`)]
}

func (u *platform) control(ctx *fasthttp.RequestCtx, path string) {
	n, err := ctx.QueryArgs().GetUint("n")
	switch {
	case path == countPath:
		ctx.SetBodyString(strconv.FormatInt(u.executions.Load(), 10))
	case err != nil:
		ctx.Error(err.Error(), http.StatusBadRequest)
	case path == sizePath:
		u.size.Store(int64(n))
	case path == delayPath:
		u.delay.Store(int64(time.Duration(n) * time.Millisecond))
	default:
		ctx.NotFound()
	}
}

// randomText returns letters and digits that mean nothing.
func randomText(size int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	random := rand.New(rand.NewPCG(1, 2)) // the same for every run
	text := make([]byte, size)
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return text
}

// sampleAnswer returns an answer such as the upstream's, for those who make up
// their own.
func sampleAnswer(size int) string {
	return `["` + string(randomText(size-len(`[""]`))) + `"]`
}

// upstream is the running upstream, seen from its caller.
type upstream struct {
	*process
	address, secured string
}

func (b *bench) startUpstream(ctx context.Context) (*upstream, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	dir, err := b.newDir("upstream")
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(ctx, "upstream", dir, nil, self, upstreamCommand, addresses[0], addresses[1])
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		if err := p.await(ctx, address); err != nil {
			p.stop()
			return nil, err
		}
	}
	return &upstream{process: p, address: addresses[0], secured: addresses[1]}, nil
}

func (u *upstream) url() string { return "http://" + u.address }

// setSize sets how large the following answers are.
func (u *upstream) setSize(ctx context.Context, bytes int) error {
	_, err := get(ctx, fmt.Sprintf("%s%s?n=%d", u.url(), sizePath, bytes))
	return err
}

// setDelay sets how long the following answers take.
func (u *upstream) setDelay(ctx context.Context, d time.Duration) error {
	_, err := get(ctx, fmt.Sprintf("%s%s?n=%d", u.url(), delayPath, d.Milliseconds()))
	return err
}

// executions returns how often something was executed so far.
func (u *upstream) executions(ctx context.Context) (int, error) {
	body, err := get(ctx, u.url()+countPath)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(string(body))
	if err != nil {
		return 0, fmt.Errorf("reading the upstream's count: %w", err)
	}
	return n, nil
}

// get fetches what is not measured.
func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking %s: %s: %s", url, resp.Status, body)
	}
	return body, nil
}
