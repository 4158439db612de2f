package genesys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutageFailsQuicklyAndMendsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400}
		down := true
		e.answer = func(n int, _ *http.Request) (*http.Response, error) {
			if down {
				return nil, errors.New("dial tcp 192.0.2.1:443: connect: connection refused")
			}
			return grantAnswer(n, 86400), nil
		}
		tokens := tokensFor(t, e)
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			before := time.Now()
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					_, err := tokens.Token(t.Context())
					var e *TokenError
					if !errors.As(err, &e) || e.Rejected || e.RetryAfter <= 0 || e.RetryAfter > maxTokenBackoff {
						t.Errorf("Token: %v (%+v)", err, e)
					}
				})
			}
			wg.Wait()
			if d := time.Since(before); d != 0 {
				t.Errorf("calls took %v", d)
			}
			time.Sleep(100 * time.Millisecond)
		}
		// 1+2+4+8+16 s, then 30 s each, or down to half of that by the jitter.
		if n := e.count(); n < 10 || n > 28 {
			t.Errorf("%d requests in 5 minutes", n)
		}
		down = false
		time.Sleep(maxTokenBackoff)
		wantToken(t, tokens, fmt.Sprintf("token-%d", e.count()+1))
		if s := tokens.Status(); s.Failures != 0 || !s.NotBefore.IsZero() || s.LastErr == nil || !s.Usable {
			t.Errorf("status %+v", s)
		}
	})
}

func TestBackgroundFailureIsHarmless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 86400}
		e.answer = func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 || n > 5 {
				return grantAnswer(n, 86400), nil
			}
			return answer(502, "<html>"), nil
		}
		tokens := tokensFor(t, e)
		wantToken(t, tokens, "token-1")
		time.Sleep(time.Until(tokens.Status().RefreshAt))
		for e.count() < 6 {
			wantToken(t, tokens, "token-1")
			time.Sleep(time.Second)
		}
		wantToken(t, tokens, "token-6")
	})
}

func TestFetchTimesOutByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := tokensFor(t, &endpoint{took: time.Hour})
		start := time.Now()
		e := wantTokenError(t, tokens)
		if time.Since(start) != DefaultTokenTimeout || e.Rejected || !strings.Contains(e.Error(), "within 10s") {
			t.Errorf("%v after %v", e, time.Since(start))
		}
	})
}

func TestAnswersOfTheTokenEndpoint(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answer   *http.Response
		rejected bool
		least    time.Duration // of RetryAfter
		most     time.Duration
		want     string
	}{
		{"Genesys' rate limit", answer(400, `{"error":"invalid_request","description":"rate limit exceeded; try later","error_description":"rate limit exceeded; try later"}`),
			false, 500 * time.Millisecond, time.Second, "rate limit exceeded"},
		{"rate limit in description only", answer(400, `{"error":"invalid_request","description":"Rate limit exceeded; x"}`, "Retry-After", "7"),
			false, 7 * time.Second, 7 * time.Second, "Rate limit exceeded"},
		{"rate limit as an error body", answer(400, rateLimitBody), false, 500 * time.Millisecond, time.Second, "400"},
		{"429", answer(429, rateLimitBody, "Retry-After", "42"), false, 42 * time.Second, 42 * time.Second, "429"},
		{"429 until tomorrow", answer(429, ``, "Retry-After", "86400"), false, maxTokenRetryAfter, maxTokenRetryAfter, "429"},
		{"500", answer(500, `secret internals`), false, 500 * time.Millisecond, time.Second, "answered 500"},
		{"503", answer(503, ``, "Retry-After", "3"), false, 3 * time.Second, 3 * time.Second, "answered 503"},
		{"client not found", answer(400, `{"error":"invalid_client","description":"client not found"}`), true, 1, time.Second, `"invalid_client" "client not found"`},
		{"unauthorized client", answer(400, `{"error":"unauthorized_client"}`), true, 1, time.Second, "unauthorized_client"},
		{"401", answer(401, ``), true, 1, time.Second, "answered 401"},
		{"400", answer(400, `{"error":"unsupported_grant_type"}`), true, 1, time.Second, "unsupported_grant_type"},
		{"404", answer(404, `<html>`), true, 1, time.Second, "answered 404"},
		{"an error in a 200", answer(200, `{"error":"invalid_client"}`), true, 1, time.Second, "invalid_client"},
		{"an outage in a 200", answer(200, `{"error":"temporarily_unavailable"}`), false, 1, time.Second, "temporarily_unavailable"},
		{"empty 200", answer(200, ``), false, 1, time.Second, "cannot be read"},
		{"empty object", answer(200, `{}`), false, 1, time.Second, "no access_token"},
		{"empty token", answer(200, `{"access_token":"","expires_in":300}`), false, 1, time.Second, "no access_token"},
		{"not JSON", answer(200, `secret internals`), false, 1, time.Second, "cannot be read"},
		{"odd expires_in", answer(200, `{"access_token":"a","expires_in":"secret internals"}`), false, 1, time.Second, "cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{answer: func(n int, _ *http.Request) (*http.Response, error) {
					if n == 1 {
						return tt.answer, nil
					}
					return grantAnswer(n, 300), nil
				}}
				tokens := tokensFor(t, e)
				err := wantTokenError(t, tokens)
				if err.Rejected != tt.rejected || err.RetryAfter < tt.least || err.RetryAfter > tt.most {
					t.Errorf("rejected %v, retry after %v", err.Rejected, err.RetryAfter)
				}
				if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "internals") {
					t.Errorf("error %q, want it to say %q", err, tt.want)
				}
				time.Sleep(err.RetryAfter - 1)
				if again := wantTokenError(t, tokens); again.RetryAfter != 1 || e.count() != 1 {
					t.Errorf("during the backoff: %v left, %d requests", again.RetryAfter, e.count())
				}
				time.Sleep(1)
				wantToken(t, tokens, "token-2")
			})
		})
	}
}

func TestRotatedSecretIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		valid := "old"
		e := &endpoint{answer: func(n int, r *http.Request) (*http.Response, error) {
			if _, secret, _ := r.BasicAuth(); secret != valid {
				return answer(400, `{"error":"invalid_client"}`), nil
			}
			return grantAnswer(n, 86400), nil
		}}
		// The file is replaced between the first read and the second.
		reads := []string{"old", "new"}
		tokens := tokensFor(t, e, func(c *TokenConfig) {
			c.Secret = func() (string, error) {
				s := reads[0]
				if len(reads) > 1 {
					reads = reads[1:]
				}
				return s, nil
			}
		})
		valid = "new"
		wantToken(t, tokens, "token-2")

		// The same wrong secret is not tried twice at once, but found mended
		// at the next fetch.
		tok := wantToken(t, tokens, "token-2")
		valid = "newest"
		tokens.Invalidate(tok)
		if err := wantTokenError(t, tokens); !err.Rejected || e.count() != 3 {
			t.Errorf("%+v after %d requests", err, e.count())
		}
		reads = []string{"newest"}
		time.Sleep(time.Second)
		wantToken(t, tokens, "token-4")
	})
}

func TestMissingCredentialsAreNotSent(t *testing.T) {
	for name, change := range map[string]func(*TokenConfig){
		"no id":         func(c *TokenConfig) { c.ClientID = nil },
		"empty id":      func(c *TokenConfig) { c.ClientID = fixed("") },
		"empty secret":  func(c *TokenConfig) { c.Secret = fixed("") },
		"secret unread": func(c *TokenConfig) { c.Secret = func() (string, error) { return "", errors.New("no such file") } },
	} {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{life: 300}
			err := wantTokenError(t, tokensFor(t, e, change))
			if err.Rejected != (name != "secret unread") || e.count() != 0 {
				t.Errorf("%s: %+v after %d requests", name, err, e.count())
			}
		})
	}
}

func TestLifeOfATokenWithoutExpiresIn(t *testing.T) {
	for body, want := range map[string]time.Duration{
		`{"access_token":"a"}`:                               DefaultTokenLife,
		`{"access_token":"a","expires_in":0}`:                DefaultTokenLife,
		`{"access_token":"a","expires_in":-5}`:               DefaultTokenLife,
		`{"access_token":"a","expires_in":null}`:             DefaultTokenLife,
		`{"access_token":"a","expires_in":"600"}`:            10 * time.Minute,
		`{"access_token":"a","expires_in":9000000000000000}`: 365 * 24 * time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			tokens := tokensFor(t, &endpoint{answer: func(int, *http.Request) (*http.Response, error) {
				return answer(200, body), nil
			}})
			if tok := wantToken(t, tokens, "a"); time.Until(tok.Expires()) != want {
				t.Errorf("%s: lives %v, want %v", body, time.Until(tok.Expires()), want)
			}
		})
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(int, *http.Request) (*http.Response, error) {
			return answer(307, ``, "Location", "http://elsewhere.example.com/"), nil
		}}
		err := wantTokenError(t, tokensFor(t, e, func(c *TokenConfig) {
			c.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
		}))
		if e.count() != 1 || err.Rejected || !strings.Contains(err.Error(), "not followed") {
			t.Errorf("%v after %d requests", err, e.count())
		}
	})
}

func TestErrorsRepeatNoSecret(t *testing.T) {
	const id, secret = "the-client", `hunter2+"\secret` // changed by every kind of escaping
	basic := func(r *http.Request) string { return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ") }
	for name, reply := range map[string]func(*http.Request) (*http.Response, error){
		"description": func(r *http.Request) (*http.Response, error) {
			return answer(400, fmt.Sprintf(`{"error":"invalid_client","error_description":%q}`, "no client with "+secret)), nil
		},
		"long description": func(r *http.Request) (*http.Response, error) {
			return answer(400, fmt.Sprintf(`{"error":"invalid_client","description":%q}`, strings.Repeat("x", 190)+secret)), nil
		},
		"code": func(r *http.Request) (*http.Response, error) { return answer(400, `{"error":"`+basic(r)+`"}`), nil },
		"body": func(r *http.Request) (*http.Response, error) { return answer(500, `internals `+secret), nil },
		"proxy": func(r *http.Request) (*http.Response, error) {
			return nil, errors.New("proxy refused Basic " + basic(r))
		},
		"line": func(r *http.Request) (*http.Response, error) {
			return nil, errors.New(`malformed HTTP response "internals ` + basic(r)[:20] + `"`)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var logged error
			e := &endpoint{answer: func(_ int, r *http.Request) (*http.Response, error) { return reply(r) }}
			tokens := tokensFor(t, e, func(c *TokenConfig) {
				c.Secret = fixed(secret)
				c.Log = func(e TokenEvent) { logged = e.Err }
			})
			err := wantTokenError(t, tokens)
			synctest.Wait()
			for _, s := range []string{
				err.Error(), fmt.Sprintf("%+v %#v", err, err.Err), fmt.Sprintf("%+v", tokens.Status()), logged.Error(),
			} {
				for _, leak := range []string{"hunter2", "internals", base64.StdEncoding.EncodeToString([]byte(id + ":"))[:8]} {
					if strings.Contains(s, leak) {
						t.Errorf("%s: %q is in %s", name, leak, s)
					}
				}
			}
		})
	}
}

func TestOwnClientFetchesAndFollowsNothing(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, r.Method+" "+r.URL.Path+" "+string(body))
		if len(seen) == 2 {
			http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"a","expires_in":300}`)
	}))
	defer s.Close()
	tokens := NewTokens(TokenConfig{TokenURL: s.URL + "/oauth/token", ClientID: fixed("i"), Secret: fixed("s")})
	defer tokens.Close()
	tokens.Invalidate(wantToken(t, tokens, "a"))
	wantTokenError(t, tokens)
	mu.Lock()
	defer mu.Unlock()
	const want = "POST /oauth/token grant_type=client_credentials"
	if len(seen) != 2 || seen[0] != want || seen[1] != want {
		t.Errorf("the server saw %q", seen)
	}
}
