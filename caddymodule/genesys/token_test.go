package genesys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// endpoint is a token endpoint behind a RoundTripper. Unless answer is set it
// grants "token-1", "token-2", … for life seconds.
type endpoint struct {
	took   time.Duration // each request
	life   int
	answer func(n int, r *http.Request) (*http.Response, error)

	mu       sync.Mutex
	requests []time.Time
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	e.mu.Lock()
	e.requests = append(e.requests, time.Now())
	n := len(e.requests)
	e.mu.Unlock()
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	select {
	case <-time.After(e.took):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if e.answer != nil {
		return e.answer(n, r)
	}
	return grantAnswer(n, e.life), nil
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.requests)
}

func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h, Body: io.NopCloser(strings.NewReader(body)),
	}
}

func grantAnswer(n, life int) *http.Response {
	return answer(200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer","expires_in":%d}`, n, life))
}

func fixed(s string) func() (string, error) { return func() (string, error) { return s, nil } }

// tokensFor must be called inside the bubble that uses the result.
func tokensFor(t *testing.T, e *endpoint, change ...func(*TokenConfig)) *Tokens {
	t.Helper()
	cfg := TokenConfig{
		TokenURL: "https://login.example.com/oauth/token",
		ClientID: fixed("the-client"),
		Secret:   fixed("the-secret"),
		Client:   &http.Client{Transport: e},
	}
	for _, c := range change {
		c(&cfg)
	}
	tokens := NewTokens(cfg)
	t.Cleanup(tokens.Close)
	return tokens
}

func wantToken(t *testing.T, tokens *Tokens, want string) Token {
	t.Helper()
	tok, err := tokens.Token(t.Context())
	if err != nil || tok.Value != want {
		t.Fatalf("Token = %q, %v; want %q", tok.Value, err, want)
	}
	return tok
}

func wantTokenError(t *testing.T, tokens *Tokens) *TokenError {
	t.Helper()
	tok, err := tokens.Token(t.Context())
	var e *TokenError
	if !errors.As(err, &e) {
		t.Fatalf("Token = %q, %v; want a TokenError", tok.Value, err)
	}
	return e
}

func TestConcurrentFirstCallsShareOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400, took: time.Second, answer: func(n int, r *http.Request) (*http.Response, error) {
			if id, secret, ok := r.BasicAuth(); r.Method != "POST" || !ok || id != "the-client" || secret != "the-secret" {
				t.Errorf("%s with %q %q %v", r.Method, id, secret, ok)
			}
			return grantAnswer(n, 86400), nil
		}}
		tokens := tokensFor(t, e)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if tok, err := tokens.Token(t.Context()); err != nil || tok.Value != "token-1" {
					t.Errorf("Token = %q, %v", tok.Value, err)
				}
			})
		}
		wg.Wait()
		if e.count() != 1 {
			t.Errorf("%d requests, want 1", e.count())
		}
	})
}

func TestCancelledCallerLeavesAtOnceAndCancelsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400, took: 5 * time.Second}
		tokens := tokensFor(t, e)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { // the first caller, whose fetch it is
			_, err := tokens.Token(ctx)
			var e *TokenError
			if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) || time.Since(start) != time.Second {
				t.Errorf("cancelled: %v after %v", err, time.Since(start))
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if tok, err := tokens.Token(t.Context()); err != nil || tok.Value != "token-1" || time.Since(start) != 5*time.Second {
				t.Errorf("the other: %q, %v after %v", tok.Value, err, time.Since(start))
			}
		})
		wg.Wait()
		if e.count() != 1 {
			t.Errorf("%d requests, want 1", e.count())
		}
	})
}

func TestTokenIsReplacedInTheBackground(t *testing.T) {
	for _, life := range []int{30, 300, 86400} {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{life: life}
			tokens := tokensFor(t, e)
			wantToken(t, tokens, "token-1")
			s := tokens.Status()
			age := time.Until(s.RefreshAt)
			whole := time.Duration(life) * time.Second
			if age < whole*2/3 || age > whole*85/100 {
				t.Errorf("life %v: replaced after %v", whole, age)
			}
			e.took = 500 * time.Millisecond
			time.Sleep(age - 1)
			wantToken(t, tokens, "token-1")
			time.Sleep(1)
			before := time.Now()
			for range 10 {
				wantToken(t, tokens, "token-1")
			}
			if d := time.Since(before); d != 0 {
				t.Errorf("life %v: callers waited %v", whole, d)
			}
			time.Sleep(e.took)
			synctest.Wait()
			wantToken(t, tokens, "token-2")
			if e.count() != 2 {
				t.Errorf("life %v: %d requests, want 2", whole, e.count())
			}
		})
	}
}

func TestIdleTokensFetchNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 300}
		tokens := tokensFor(t, e)
		wantToken(t, tokens, "token-1")
		time.Sleep(24 * time.Hour)
		if e.count() != 1 {
			t.Errorf("%d requests, want 1", e.count())
		}
		wantToken(t, tokens, "token-2")
	})
}

func TestTokenIsNeverHandedOutInItsMargin(t *testing.T) {
	for life, usable := range map[int]time.Duration{
		86400: 86400*time.Second - time.Minute,
		300:   240 * time.Second,
		30:    24 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			down := false
			e := &endpoint{took: time.Second, answer: func(n int, _ *http.Request) (*http.Response, error) {
				if down {
					return answer(503, ""), nil
				}
				return grantAnswer(n, life), nil
			}}
			tokens := tokensFor(t, e)
			asked := time.Now() // the token may be as old as the request
			wantToken(t, tokens, "token-1")
			down = true
			time.Sleep(time.Until(asked.Add(usable)) - 1)
			wantToken(t, tokens, "token-1")
			time.Sleep(1)
			if e := wantTokenError(t, tokens); e.Rejected {
				t.Errorf("life %d: %v is a rejection", life, e)
			}
		})
	}
}

func TestTokenThatComesTooLateIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := tokensFor(t, &endpoint{took: 5 * time.Second, life: 5})
		if e := wantTokenError(t, tokens); e.Rejected || e.RetryAfter <= 0 {
			t.Errorf("got %+v", e)
		}
	})
}

func TestInvalidateIsByGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400, took: time.Second}
		var mu sync.Mutex
		events := map[TokenEventKind]int{}
		tokens := tokensFor(t, e, func(c *TokenConfig) {
			c.Log = func(e TokenEvent) { mu.Lock(); events[e.Kind]++; mu.Unlock() }
		})
		old := wantToken(t, tokens, "token-1")
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				tokens.Invalidate(old)
				if tok, err := tokens.Token(t.Context()); err != nil || tok.Value != "token-2" {
					t.Errorf("Token = %q, %v", tok.Value, err)
				}
				tokens.Invalidate(old) // late, and about another token by now
				tokens.Invalidate(Token{})
			})
		}
		wg.Wait()
		synctest.Wait()
		wantToken(t, tokens, "token-2")
		if e.count() != 2 || events[TokenInvalidated] != 1 || events[TokenIssued] != 2 {
			t.Errorf("%d requests, events %v", e.count(), events)
		}
	})
}

func TestRejectedTokensAreNotRenewedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400}
		tokens := tokensFor(t, e)
		for start := time.Now(); time.Since(start) < time.Hour; time.Sleep(time.Second) {
			tok, err := tokens.Token(t.Context())
			if err != nil {
				t.Fatal(err) // others may be served with it
			}
			tokens.Invalidate(tok) // as if the API had said 401
		}
		if most := renewalBurst + int(time.Hour/renewalInterval) + 1; e.count() > most {
			t.Errorf("%d requests in an hour, want at most %d", e.count(), most)
		}
	})
}

func TestARenewedTokenIsReplacedBeforeItIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := tokensFor(t, &endpoint{life: 86400, took: time.Second})
		tokens.Renew(wantToken(t, tokens, "token-1"))
		wantToken(t, tokens, "token-2")
	})
}

func TestARenewedTokenIsUsedWhereNoneCanBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400}
		tokens := tokensFor(t, e)
		tok := wantToken(t, tokens, "token-1")
		e.answer = func(int, *http.Request) (*http.Response, error) { return answer(503, ""), nil }
		tokens.Renew(tok)
		for range 100 {
			wantToken(t, tokens, "token-1")
		}
		if n := e.count(); n != 2 {
			t.Errorf("%d requests, want one more", n)
		}
		tokens.Invalidate(tok)
		wantTokenError(t, tokens)
	})
}

func TestCloseEndsTheFetchAndKeepsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400}
		tokens := tokensFor(t, e)
		tok := wantToken(t, tokens, "token-1")
		e.took = time.Minute
		time.Sleep(time.Until(tok.Expires()) - 2*time.Minute)
		wantToken(t, tokens, "token-1") // starts a fetch in the background
		tokens.Close()
		tokens.Close()
		synctest.Wait()
		if s := tokens.Status(); s.Fetching || !s.Usable {
			t.Errorf("after Close: %+v", s)
		}
		wantToken(t, tokens, "token-1")
		time.Sleep(time.Hour)
		if e := wantTokenError(t, tokens); !errors.Is(e, errTokensClosed) {
			t.Errorf("got %v", e)
		}
		if e.count() != 2 {
			t.Errorf("%d requests, want 2", e.count())
		}
	})
}

func TestTokenDoesNotShowItsValue(t *testing.T) {
	tok := newToken("hunter2", 3, time.Time{})
	marshalled, err := json.Marshal(map[string]any{"t": tok, "p": &tok})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("m", "t", tok, "l", lease{Token: tok})
	}
	for _, s := range []string{
		tok.String(), tok.GoString(), log.String(), string(marshalled),
		fmt.Sprintf("%v %+v %#v %s %q %x %d", tok, tok, tok, tok, tok, tok, tok),
		fmt.Sprintf("%v %+v %#v", &tok, lease{Token: tok}, []Token{tok}),
	} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) || !strings.Contains(s, "generation 3") {
			t.Errorf("shown as %s", s)
		}
	}
}
