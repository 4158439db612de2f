package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config describes a sandbox. The zero value is a sandbox that grants every
// permission, keeps its ledger in memory and never fails.
type Config struct {
	// ClientID and ClientSecret are the only OAuth client. Both default to
	// "sandbox".
	ClientID     string
	ClientSecret string

	// TokenLife is the lifetime of an issued token; 24 hours if zero. It is
	// told in whole seconds, so the least is one second.
	TokenLife time.Duration

	// TokenIdle ends a token that was not used for so long, as organisations
	// under HIPAA have it (15 minutes there). Zero: idle tokens live on.
	TokenIdle time.Duration

	// MaxTokens is how many tokens may be valid at once: one more invalidates
	// the oldest. Zero: as many as the sandbox remembers.
	MaxTokens int

	// Latency is how long every action runs before it takes effect. It is
	// spent in real time, whatever Now says.
	Latency time.Duration

	// Faults are the probabilities, from 0 to 1, with which action requests
	// that name no fault of their own meet one. The names are those of
	// [FaultTable], with an argument if one is wanted ("slow=2s").
	Faults map[string]float64

	// Seed makes the draws for Faults repeatable. Zero draws a seed, which
	// is logged and told by Sandbox.Seed and GET /sandbox.
	Seed uint64

	// LedgerFile keeps the effects and the remembered keys, one JSON object a
	// line, flushed to the disk before an effect is acknowledged. It is read
	// again on start. Empty: they end with the process. Two sandboxes must
	// not share a file.
	LedgerFile string

	// Forbidden takes the permission to execute actions from the client.
	Forbidden bool

	// RateLimit is how many API requests a token has per RateWindow (one
	// minute if zero). Zero: no limit. The real platform's is 300 a minute.
	RateLimit  int
	RateWindow time.Duration

	// Now is the clock for the lifetimes of tokens and keys, for the rate
	// limit and for the times in the ledger; time.Now if nil.
	Now func() time.Time

	// Logger is told what the sandbox was made with and what goes wrong;
	// nil: nobody is.
	Logger *slog.Logger
}

// Sandbox is the double. It is an [http.Handler] for everything: the API, the
// token endpoint, the ledger and the controls. All methods may be called
// from many goroutines at once.
type Sandbox struct {
	latency   time.Duration
	now       func() time.Time
	log       *slog.Logger
	tokens    *tokens
	limiter   *limiter
	faults    *faults
	keys      *keys
	ledger    *ledger
	forbidden atomic.Bool
	closed    chan struct{}
	closing   sync.Once
}

// New makes a sandbox and loads its ledger file, if it has one. The caller
// must Close it.
func New(cfg Config) (*Sandbox, error) {
	if cfg.ClientID == "" {
		cfg.ClientID = "sandbox"
	}
	if cfg.ClientSecret == "" {
		cfg.ClientSecret = "sandbox"
	}
	if cfg.TokenLife == 0 {
		cfg.TokenLife = 24 * time.Hour
	}
	if cfg.RateWindow == 0 {
		cfg.RateWindow = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for cfg.Seed == 0 {
		var seed [8]byte
		rand.Read(seed[:]) // never fails
		cfg.Seed = binary.LittleEndian.Uint64(seed[:])
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuring the sandbox: %w", err)
	}
	f, err := newFaults(cfg.Faults, cfg.Seed)
	if err != nil {
		return nil, fmt.Errorf("configuring the sandbox: %w", err)
	}
	k := newKeys(cfg.Now)
	l, err := openLedger(cfg.LedgerFile, k)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{
		latency: cfg.Latency,
		now:     cfg.Now,
		log:     cfg.Logger,
		tokens:  newTokens(cfg),
		limiter: newLimiter(cfg.RateLimit, cfg.RateWindow, cfg.Now),
		faults:  f,
		keys:    k,
		ledger:  l,
		closed:  make(chan struct{}),
	}
	s.forbidden.Store(cfg.Forbidden)
	s.log.Info("sandbox ready",
		slog.Uint64("seed", cfg.Seed),
		slog.Int("effects_loaded", l.summary().Effects))
	return s, nil
}

func (cfg Config) check() error {
	var errs []error
	if cfg.TokenLife < time.Second {
		errs = append(errs, errors.New("token life is below one second"))
	}
	if cfg.TokenIdle < 0 || cfg.Latency < 0 || cfg.RateWindow < 0 {
		errs = append(errs, errors.New("a duration is negative"))
	}
	if cfg.MaxTokens < 0 || cfg.RateLimit < 0 {
		errs = append(errs, errors.New("a limit is negative"))
	}
	return errors.Join(errs...)
}

// Seed returns the seed of the draws for Config.Faults.
func (s *Sandbox) Seed() uint64 { return s.faults.seed }

// Close ends what the sandbox delays or leaves hanging and closes the ledger
// file. Actions that had not taken effect by then never do. A closed sandbox
// drops every action request. Close may be called again.
func (s *Sandbox) Close() error {
	s.closing.Do(func() { close(s.closed) })
	return s.ledger.close()
}

// Server returns an HTTP/1.1 server for the sandbox, without an address. It
// can tell a reused connection from a fresh one, which the fault early-close
// needs; under any other server that fault takes each connection for reused.
// For an httptest.Server, assign it to the Config of an unstarted one.
func (s *Sandbox) Server() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: s,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, requestsKey{}, new(atomic.Int64))
		},
		// HTTP/1.1 only, because cutting a connection means more there than
		// resetting one of many streams.
		Protocols:         &protocols,
		ReadHeaderTimeout: 10 * time.Second,
	}
}

// requestsKey finds the number of requests a connection has brought so far.
type requestsKey struct{}

// ServeHTTP answers as Genesys Cloud would. Faults that cut the connection
// end it with a panic of [http.ErrAbortHandler], which servers of net/http
// turn into a closed connection (or a reset stream).
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, w: w, r: r, correlation: newUUID(), reused: true}
	if requests, ok := r.Context().Value(requestsKey{}).(*atomic.Int64); ok {
		x.reused = requests.Add(1) > 1
	}
	w.Header().Set("ININ-Correlation-Id", x.correlation)
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")

	path := r.URL.EscapedPath()
	switch {
	case path == "/oauth/token", path == "/login/oauth/token":
		x.serveToken()
	case strings.HasPrefix(path, "/api/v2/"):
		x.serveAPI(path)
	case path == "/ledger", path == "/ledger/summary",
		path == "/sandbox", strings.HasPrefix(path, "/sandbox/"):
		x.serveControl(path)
	default:
		x.refuse(platformProblem(http.StatusNotFound))
	}
}

// exchange is one request and its answer.
type exchange struct {
	s           *Sandbox
	w           http.ResponseWriter
	r           *http.Request
	correlation string
	reused      bool     // the connection brought a request before
	attempt     *Attempt // nil for what is no action
	token       string   // digest, once known to be valid
}

// answer records and writes an answer. It is recorded first, so that whoever
// has read the answer finds it in the ledger.
func (x *exchange) answer(rep reply) {
	x.settle(OutcomeAnswered, rep)
	rep.send(x.w, false)
}

func (x *exchange) refuse(p problem) { x.answer(p.reply(x.correlation)) }

// truncate writes half an answer and cuts the connection.
func (x *exchange) truncate(rep reply) {
	x.settle(OutcomeTruncated, rep)
	rep.send(x.w, true)
	panic(http.ErrAbortHandler)
}

// drop closes the connection without a byte.
func (x *exchange) drop() {
	x.settle(OutcomeDropped, reply{})
	panic(http.ErrAbortHandler)
}

func (x *exchange) settle(outcome Outcome, rep reply) {
	if x.attempt == nil {
		return
	}
	if outcome == OutcomeAnswered && x.r.Context().Err() != nil {
		outcome = OutcomeCallerLeft
	}
	x.note(func(a *Attempt) {
		a.Outcome, a.Status, a.Code = outcome, rep.status, rep.code
	})
}

// note changes the attempt in the ledger, if there is one.
func (x *exchange) note(change func(*Attempt)) {
	if x.attempt == nil {
		return
	}
	x.s.ledger.mu.Lock()
	defer x.s.ledger.mu.Unlock()
	change(x.attempt)
}

// pause waits, and says whether it waited it all out. The caller's going away
// ends it only if heed is set: an action that runs keeps running.
func (x *exchange) pause(d time.Duration, heed bool) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	var left <-chan struct{}
	if heed {
		left = x.r.Context().Done()
	}
	select {
	case <-timer.C:
		return true
	case <-left:
		return false
	case <-x.s.closed:
		return false
	}
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
