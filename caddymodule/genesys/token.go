package genesys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// What a TokenConfig leaves at zero.
const (
	// DefaultTokenTimeout bounds one fetch, its second try included.
	DefaultTokenTimeout = 10 * time.Second
	// DefaultTokenMargin is how long before its expiry a token is no longer
	// handed out, so that it is still good when the platform reads it.
	DefaultTokenMargin = time.Minute
	// DefaultTokenLife is taken for the life of a token whose answer does not
	// tell it. The platform's shortest is 300 s; believing less costs a fetch,
	// believing more costs 401s.
	DefaultTokenLife = 5 * time.Minute
)

const (
	// After a failed fetch the next one waits this long, doubled each time.
	minTokenBackoff = time.Second
	maxTokenBackoff = 30 * time.Second

	// maxTokenRetryAfter bounds what the token endpoint's Retry-After is
	// obeyed for. Every call needs a token, so an endpoint that says "tomorrow"
	// by mistake must not switch the sidecar off until then; one request in
	// five minutes harms nobody.
	maxTokenRetryAfter = 5 * time.Minute

	// A token is fetched anew at once for this many rejections by the API, then
	// once per interval. If the API rejects every token, each call would mint
	// one otherwise, and minting many invalidates the oldest ones, which other
	// sidecars may be using, and ends in the token endpoint's rate limit.
	renewalBurst    = 4
	renewalInterval = 15 * time.Second
)

// errTokensClosed is the error of a fetch after Close.
var errTokensClosed = errors.New("the token source is closed")

// TokenConfig says where tokens come from. TokenURL, ClientID and Secret are
// needed, everything else has a default.
type TokenConfig struct {
	// TokenURL is the token endpoint: see TokenURL the function.
	TokenURL string

	// ClientID and Secret are called for every fetch, one after the other and
	// never concurrently, so that a rotated secret is seen without a restart.
	// They should not block: nothing interrupts them. Their errors are shown
	// to operators.
	ClientID func() (string, error)
	Secret   func() (string, error)

	// Client makes the requests; nil is a client of its own. Redirects are
	// never followed, whatever the client says.
	Client *http.Client

	Timeout     time.Duration // of a fetch; DefaultTokenTimeout
	Margin      time.Duration // DefaultTokenMargin, but at most a fifth of a token's life
	DefaultLife time.Duration // DefaultTokenLife

	// Log, if set, is told of each event, after it has taken effect and with no
	// lock held. It may be called concurrently.
	Log func(TokenEvent)
}

// TokenEvent is something an operator may want to see in a log. It holds no
// secret.
type TokenEvent struct {
	Kind       TokenEventKind
	Generation uint64        // of the token issued or invalidated
	Expires    time.Time     // of the token issued
	Background bool          // the fetch replaced a token that was still good
	Took       time.Duration // the fetch
	Err        error         // a *TokenError, if the fetch failed
}

// TokenEventKind is what a TokenEvent tells.
type TokenEventKind string

const (
	TokenIssued      TokenEventKind = "issued"
	TokenFailed      TokenEventKind = "failed"
	TokenInvalidated TokenEventKind = "invalidated" // the API rejected it
)

// Token is an access token. However it is formatted, logged or marshalled, its
// value does not appear. (Package fmt calls no methods of unexported fields: do
// not print a whole struct that holds a Token in one.)
type Token struct {
	Value string // what follows "Bearer "

	bearer     *[1]string // see Authorization; nil: not made yet
	generation uint64
	expires    time.Time
}

// newToken returns the token value, with its Authorization made once for all
// requests.
func newToken(value string, generation uint64, expires time.Time) Token {
	return Token{Value: value, bearer: &[1]string{bearer + value}, generation: generation, expires: expires}
}

const bearer = "Bearer "

// Authorization returns the values of that header for t. Nobody may change them.
func (t Token) Authorization() []string {
	if t.bearer == nil {
		return []string{bearer + t.Value}
	}
	return t.bearer[:1:1]
}

// Generation numbers the tokens of one Tokens from 1; it is 0 for the zero Token.
func (t Token) Generation() uint64 { return t.generation }

// Expires returns when the token ends.
func (t Token) Expires() time.Time { return t.expires }

func (t Token) String() string               { return fmt.Sprintf("token(generation %d)", t.generation) }
func (t Token) GoString() string             { return t.String() }
func (t Token) Format(s fmt.State, _ rune)   { _, _ = fmt.Fprint(s, t.String()) }
func (t Token) LogValue() slog.Value         { return slog.StringValue(t.String()) }
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// TokenError says that there is no token. Neither it nor what it wraps holds a
// secret, a token or a body, and it wraps no context error: those are only
// returned for the caller's own context.
type TokenError struct {
	// Rejected says that the token endpoint refused the client or the request,
	// which waiting will not mend: somebody has to change the credentials or
	// the configuration. If false, the endpoint was not to be had.
	Rejected bool

	// RetryAfter is how long from now on no further fetch is made. Until then
	// Token returns this error at once.
	RetryAfter time.Duration

	Err error
}

func (e *TokenError) Error() string { return "fetching token: " + e.Err.Error() }
func (e *TokenError) Unwrap() error { return e.Err }

// Tokens hands out access tokens by the client credentials grant (RFC 6749,
// section 4.4) and keeps the current one.
//
// At most one fetch is under way at any time, on a context of its own: it is
// never cancelled by a caller that leaves. There is no timer: the first caller
// that sees a token past 80 % of its life has it replaced in the background,
// so an idle sidecar mints none.
//
// Make one with NewTokens, one per token URL and client. Its methods may be
// called concurrently.
type Tokens struct {
	cfg      TokenConfig
	client   *http.Client
	ctx      context.Context // of all fetches, ended by Close
	cancel   context.CancelFunc
	renewals *rate.Limiter // fetches caused by Invalidate
	requests atomic.Uint64

	mu         sync.Mutex
	closed     bool
	current    lease   // generation 0 if none
	generation uint64  // of the last token issued
	flight     *flight // the fetch under way, nil if none
	failures   int     // in a row
	notBefore  time.Time
	blocked    *TokenError // what is returned until notBefore, less its RetryAfter
	lastErr    error
	lastErrAt  time.Time
}

// flight is one fetch. Its error is set before done is closed.
type flight struct {
	done chan struct{}
	err  *TokenError
}

// NewTokens returns a Tokens that has fetched nothing yet.
func NewTokens(cfg TokenConfig) *Tokens {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTokenTimeout
	}
	if cfg.Margin <= 0 {
		cfg.Margin = DefaultTokenMargin
	}
	if cfg.DefaultLife <= 0 {
		cfg.DefaultLife = DefaultTokenLife
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Tokens{
		cfg:      cfg,
		client:   tokenClient(cfg.Client),
		ctx:      ctx,
		cancel:   cancel,
		renewals: rate.NewLimiter(rate.Every(renewalInterval), renewalBurst),
	}
}

// Token returns a token that is good for a while yet, at once if there is one,
// else after a fetch. It returns a *TokenError if there is none to be had, or
// an error wrapping ctx.Err() if ctx ends first.
//
// After a failed fetch, further calls fail at once until its backoff is over.
func (t *Tokens) Token(ctx context.Context) (Token, error) {
	for {
		tok, f, err := t.next(time.Now())
		if f == nil {
			return tok, err
		}
		select {
		case <-f.done:
			if f.err != nil && !t.usable() {
				e := *f.err
				return Token{}, &e
			}
			// The token is looked up anew, as it may have expired if this
			// goroutine, or the machine, slept in between.
		case <-ctx.Done():
			return Token{}, fmt.Errorf("waiting for token: %w", ctx.Err())
		}
	}
}

// next returns a token, or an error, or the fetch to wait for.
func (t *Tokens) next(now time.Time) (Token, *flight, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mayFetch := t.flight == nil && !t.closed && !now.Before(t.notBefore)
	if t.current.usable(now) {
		switch {
		case t.current.doubted && t.flight != nil:
			return Token{}, t.flight, nil
		case t.current.doubted && mayFetch:
			return Token{}, t.startLocked(false), nil
		case mayFetch && !now.Before(t.current.refreshAt):
			t.startLocked(true)
		}
		return t.current.Token, nil, nil
	}
	switch {
	case t.flight != nil:
		return Token{}, t.flight, nil
	case mayFetch:
		return Token{}, t.startLocked(false), nil
	case t.closed:
		return Token{}, nil, &TokenError{Err: errTokensClosed}
	}
	err := *t.blocked
	err.RetryAfter = t.notBefore.Sub(now)
	return Token{}, nil, &err
}

func (t *Tokens) startLocked(background bool) *flight {
	f := &flight{done: make(chan struct{})}
	t.flight = f
	go t.run(f, background)
	return f
}

// run is the goroutine of one fetch.
func (t *Tokens) run(f *flight, background bool) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.Timeout)
	defer cancel()
	got, fail := t.fetch(ctx)

	t.mu.Lock()
	now := time.Now()
	if fail == nil {
		fail = t.issueLocked(got, now)
	}
	event := TokenEvent{Background: background, Took: now.Sub(began)}
	if fail == nil {
		event.Kind, event.Generation, event.Expires = TokenIssued, t.generation, t.current.expires
	} else {
		f.err = t.failLocked(fail, now)
		event.Kind, event.Err = TokenFailed, f.err
	}
	t.flight = nil
	t.mu.Unlock()

	close(f.done)
	t.log(event)
}

// issueLocked makes a fetched token the current one, unless it came so late
// that it is of no use.
func (t *Tokens) issueLocked(got grant, now time.Time) *failure {
	l := newLease(got, t.cfg.Margin, t.generation+1)
	if !l.usable(now) {
		return &failure{err: fmt.Errorf("the token endpoint's answer took longer than the token lives (%v)", got.life)}
	}
	t.generation = l.generation
	t.current = l
	t.failures, t.notBefore, t.blocked = 0, time.Time{}, nil
	return nil
}

func (t *Tokens) failLocked(fail *failure, now time.Time) *TokenError {
	t.failures++
	wait := maxTokenBackoff
	if doublings := t.failures - 1; doublings < 5 {
		wait = min(wait, minTokenBackoff<<doublings)
	}
	wait = wait/2 + rand.N(wait/2+1)
	wait = max(wait, min(fail.retryAfter, maxTokenRetryAfter))
	t.notBefore = now.Add(wait)
	t.blocked = &TokenError{Rejected: fail.rejected, RetryAfter: wait, Err: fail.err}
	if t.closed {
		t.blocked = &TokenError{Err: errTokensClosed}
	}
	t.lastErr, t.lastErrAt = t.blocked, now
	return t.blocked
}

// Invalidate says that the API rejected tok. It is dropped if it is still the
// current token, so however many callers were rejected with the same one, it is
// fetched anew once. (An organisation under HIPAA rules loses tokens after 15
// idle minutes, long before they expire.)
//
// If the API rejects token after token, it is not the token's fault, or no
// fetch will mend it: the current one is then kept for a while. One action that
// is always rejected must not keep all others from theirs.
func (t *Tokens) Invalidate(tok Token) {
	t.replace(tok, func() bool { t.current = lease{}; return true })
}

// Renew says that the API rejected tok for what it may do. It is replaced
// before it is used again, as a new one may do more by now; but where none can
// be had it goes on being used. Otherwise Renew is as Invalidate.
func (t *Tokens) Renew(tok Token) {
	t.replace(tok, func() bool {
		was := t.current.doubted
		t.current.doubted = true
		return !was
	})
}

// replace marks tok if it is current and a renewal is due. markLocked tells
// whether that is news.
func (t *Tokens) replace(tok Token, markLocked func() bool) {
	t.mu.Lock()
	current := tok.generation != 0 && tok.generation == t.current.generation
	news := current && (t.current.doubted || t.renewals.Allow()) && markLocked()
	t.mu.Unlock()
	if news {
		t.log(TokenEvent{Kind: TokenInvalidated, Generation: tok.generation})
	}
}

// AtHand tells whether Token would return a token at once.
func (t *Tokens) AtHand() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current.usable(time.Now()) && !t.current.doubted
}

func (t *Tokens) usable() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current.usable(time.Now())
}

// Close cancels the fetch under way, if any, and prevents further ones. The
// current token is handed out as long as it is good, for calls that are still
// being finished. Close may be called more than once.
func (t *Tokens) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
}

func (t *Tokens) log(e TokenEvent) {
	if t.cfg.Log != nil {
		t.cfg.Log(e)
	}
}

// TokenStatus is what an operator may know of a Tokens at one moment.
type TokenStatus struct {
	Usable     bool      // there is a token to hand out
	Generation uint64    // tokens issued so far
	Expires    time.Time // of the current token; zero if there is none
	RefreshAt  time.Time // likewise
	Fetching   bool      // a fetch is under way
	Requests   uint64    // sent to the token endpoint so far
	Failures   int       // fetches failed in a row
	NotBefore  time.Time // no fetch before; zero if there was no failure
	LastErr    error     // the last one ever; nil if there was none
	LastErrAt  time.Time
}

// Status returns a snapshot for operators. It holds no secret.
func (t *Tokens) Status() TokenStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TokenStatus{
		Usable:     t.current.usable(time.Now()),
		Generation: t.generation,
		Expires:    t.current.expires,
		RefreshAt:  t.current.refreshAt,
		Fetching:   t.flight != nil,
		Requests:   t.requests.Load(),
		Failures:   t.failures,
		NotBefore:  t.notBefore,
		LastErr:    t.lastErr,
		LastErrAt:  t.lastErrAt,
	}
}
