package genesys

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRejectedTokenIsReplacedOnceAndTheCallResent(t *testing.T) {
	for _, code := range []string{"bad.credentials", "authentication.required", "credentials.expired"} {
		synctest.Test(t, func(t *testing.T) {
			up := scripted(saysCode(401, code), says(200, "{}"))
			b := benchFor(t, up)
			start := time.Now()
			reply := b.Invoke(within(t, time.Minute), call())
			wantOutcome(t, reply, outcome{Final, Answered, 200})
			wantCount(t, up, 2)
			if reply.Attempts != 2 || time.Since(start) != 0 {
				t.Errorf("%d attempts in %v", reply.Attempts, time.Since(start))
			}
			if s := up.seen(); s[0].token != "token-1" || s[1].token != "token-2" || s[0].body != s[1].body || s[0].key != s[1].key {
				t.Errorf("sent %+v", s)
			}
		})
	}
}

func TestRenewalIsPossibleAtTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(401, "bad.credentials"), says(200, "{}"))
		b := benchFor(t, up)
		b.Policy.Attempts = 1
		wantOutcome(t, b.Invoke(within(t, time.Minute), call()), outcome{Final, Answered, 200})
		wantCount(t, up, 2)
	})
}

func TestRenewalTakesNoAttemptTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(401, "bad.credentials"), noDial)
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), call()), outcome{NotRun, Unreachable, 0})
		wantCount(t, up, 4)
	})
}

func TestSecondRejectionIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, r := range []Request{call(), honoredCall()} {
			up := scripted(saysCode(401, "bad.credentials", "X-N", "1"), saysCode(401, "bad.credentials", "X-N", "2"), says(200, ""))
			b := benchFor(t, up)
			reply := b.Invoke(within(t, time.Minute), r)
			wantOutcome(t, reply, outcome{NotRun, Answered, 401})
			wantCount(t, up, 2)
			if reply.Header.Get("X-N") != "2" || !strings.Contains(string(reply.Body), "bad.credentials") {
				t.Errorf("%+v", reply)
			}
			if s := b.Tokens.Status(); s.Usable {
				t.Error("the second token is still handed out")
			}
		}
	})
}

func TestRejectionBetweenOtherFailuresIsRenewedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(401, "bad.credentials"), drops, saysCode(401, "bad.credentials"), says(200, ""))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), honoredCall()), outcome{Unknown, Answered, 401})
		wantCount(t, up, 3)
	})
}

func TestRemoteServicesRejectionIsNotResent(t *testing.T) {
	for what, s := range map[string]step{
		"no code":      says(401, "{}"),
		"another code": saysCode(401, "invalid.credentials"),
		"not JSON":     says(401, platformBody(401, "bad.credentials"), "Content-Type", "text/html"),
	} {
		synctest.Test(t, func(t *testing.T) {
			up := scripted(s, says(200, ""))
			b := benchFor(t, up)
			reply := b.Invoke(within(t, time.Minute), call())
			wantOutcome(t, reply, outcome{NotRun, Answered, 401})
			if up.count() != 1 || b.login.count() != 1 || !b.Tokens.Status().Usable {
				t.Errorf("%s: %d requests, %d tokens", what, up.count(), b.login.count())
			}
		})
	}
}

func TestAnyRejectionIsResentWhereTheKeyIsHonored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(401, ""), says(200, ""))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), honoredCall()), outcome{Final, Answered, 200})
		wantCount(t, up, 2)
	})
}

// The platform's 401 would tell the caller to mend credentials that it does not
// have.
func TestRejectionIsToldAsWhatItIsIfThereIsNoNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(saysCode(401, "bad.credentials")))
		b.login.answer = func(n int, _ *http.Request) (*http.Response, error) {
			if n > 1 {
				return answer(503, ""), nil
			}
			return grantAnswer(n, 86400), nil
		}
		reply := b.Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{NotRun, NoToken, 0})
		if reply.Attempts != 1 {
			t.Errorf("%+v", reply)
		}
	})
}

func TestNoTokenSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, ""))
		b := benchFor(t, up)
		b.login.answer = func(int, *http.Request) (*http.Response, error) { return answer(503, ""), nil }
		reply := b.Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{NotRun, NoToken, 0})
		var e *TokenError
		if !errors.As(reply.Err, &e) {
			t.Errorf("got %v", reply.Err)
		}
		if _, err := b.Ready(t.Context(), time.Now().Add(time.Minute), ""); !errors.As(err, &e) {
			t.Errorf("Ready = %v", err)
		}
		r := honoredCall()
		r.Resumed = true
		wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{Unknown, NoToken, 0})
		wantCount(t, up, 0)
	})
}

func TestReadyFetchesTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, ""))
		b := benchFor(t, up)
		if _, err := b.Ready(t.Context(), time.Now().Add(time.Minute), ""); err != nil {
			t.Fatal(err)
		}
		b.Invoke(within(t, time.Minute), call())
		if b.login.count() != 1 {
			t.Errorf("%d token requests", b.login.count())
		}
	})
}

// What is sent without being made ready first must find a token at hand.
func TestReadinessNeedsATokenAtHandAndNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(says(200, "")))
		if b.IsReady() {
			t.Error("ready without a token")
		}
		if _, err := b.Ready(t.Context(), time.Now().Add(time.Minute), ""); err != nil {
			t.Fatal(err)
		}
		if !b.IsReady() {
			t.Error("not ready with a token")
		}

		b.Pause.Until(time.Now().Add(30 * time.Second))
		if b.IsReady() {
			t.Error("ready during a pause")
		}
		time.Sleep(30 * time.Second)
		if !b.IsReady() {
			t.Error("not ready after the pause")
		}

		tok, err := b.Tokens.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.Tokens.Invalidate(tok)
		if b.IsReady() {
			t.Error("ready with a token that was rejected")
		}
		tok, err = b.Tokens.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(tok.Expires()) - time.Minute - time.Nanosecond)
		if !b.IsReady() {
			t.Error("not ready just before the token's last minute")
		}
		time.Sleep(time.Nanosecond)
		if b.IsReady() {
			t.Error("ready in the token's last minute")
		}
		if b.login.count() != 2 {
			t.Errorf("asking whether it is ready fetched tokens: %d requests", b.login.count())
		}
	})
}

func TestForbiddenHasTheTokenReplacedAndTellsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for code, want := range map[string]bool{
			"missing.permissions": true, "missing.any.permissions": true, "not.authorized": true,
			"remote.says.no": false, "": false,
		} {
			body := "{}"
			if code != "" {
				body = `{"code":"` + code + `","messageParams":{"permissions":"[integrations:action:execute]"}}`
			}
			up := scripted(says(403, body))
			b := benchFor(t, up)
			var told []ErrorBody
			b.Forbidden = func(e ErrorBody) { told = append(told, e) }
			wantOutcome(t, b.Invoke(within(t, time.Minute), call()), outcome{NotRun, Answered, 403})
			wantCount(t, up, 1)
			before := b.Tokens.Status().Generation
			if _, err := b.Tokens.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			replaced := b.Tokens.Status().Generation > before
			if (len(told) == 1) != want || len(told) > 1 || replaced != want {
				t.Errorf("%q: told %v, token replaced %v", code, told, replaced)
			}
			if want && told[0].MessageParams["permissions"] != "[integrations:action:execute]" {
				t.Errorf("told %+v", told)
			}
			b.Forbidden = nil
			b.Invoke(within(t, time.Minute), call()) // without anybody to tell
		}
	})
}

func TestTokenOfTheContextIsTheTokensOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got Token
		b := benchFor(t, scripted(func(r *http.Request) (*http.Response, error) {
			got, _ = TokenFrom(r.Context())
			return answer(200, ""), nil
		}))
		b.Invoke(within(t, time.Minute), call())
		if want := wantToken(t, b.Tokens, "token-1"); got != want || got.Generation() != 1 {
			t.Errorf("got %v, want %v", got, want)
		}
		if tok, ok := TokenFrom(t.Context()); ok || tok != (Token{}) {
			t.Error("a token in a context without one")
		}
	})
}

// An upstream may repeat what it was sent where net/http quotes it.
func TestTokenIsNeitherInErrorsNorLogs(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for what, raw := range map[string]string{
			"as a status line":  "Bearer token-1\r\n\r\n",
			"as a header":       "HTTP/1.1 200 OK\r\nBearer token-1\r\n\r\n",
			"as a length":       "HTTP/1.1 200 OK\r\nContent-Length: token-1\r\n\r\n",
			"as an encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: token-1\r\n\r\n",
			"as a body":         "HTTP/1.1 401 No\r\nContent-Length: 18\r\n\r\n{\"code\":\"token-1\"}",
			"as half a body":    "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\ntoken-1",
			"as an interim one": "HTTP/1.1 103 token-1\r\n\r\n",
			"not at all":        "",
		} {
			srv := newWire(t, sendAndClose(raw))
			b := benchFor(t, transport(t))
			reply := b.Invoke(within(t, time.Minute), callTo(t, srv.url))
			if tok := srv.seen()[0].header.Get("Authorization"); tok != "Bearer token-1" {
				t.Errorf("Authorization %q", tok)
			}
			if reply.Err != nil && strings.Contains(reply.Err.Error(), "token-1") {
				t.Errorf("%s: error %v", what, reply.Err)
			}
			if log := b.log.String(); strings.Contains(log, "token-1") || !strings.Contains(log, `"attempt"`) {
				t.Errorf("%s: log %s", what, log)
			}
			if raw == "" && !errors.Is(reply.Err, io.EOF) {
				t.Errorf("the error is hidden: %v", reply.Err)
			}
		}
	})
}
