package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// The modes of the token endpoint.
const (
	tokensOK          = "ok"
	tokensDown        = "down"
	tokensRateLimited = "rate-limited"
	tokensHang        = "hang"
	tokensEmpty       = "empty"
	tokensReject      = "reject"
)

var tokenModes = []string{tokensOK, tokensDown, tokensRateLimited, tokensHang, tokensEmpty, tokensReject}

// rememberedTokens bounds the tokens kept, valid or not. Beyond it the oldest
// is forgotten, and so no longer valid.
const rememberedTokens = 10_000

// tokenEndpoint is how the token endpoint behaves.
type tokenEndpoint struct {
	Mode string `json:"mode"`
	// Times is how many requests the mode lasts before it is "ok" again.
	// Zero: until it is changed.
	Times int `json:"times,omitempty"`
	// Latency delays every answer of the endpoint.
	Latency duration `json:"latency,omitempty"`
}

type token struct {
	digest string
	ends   time.Time
	used   time.Time
	dead   bool
}

// tokens issues and checks access tokens. It keeps digests, never a token.
type tokens struct {
	now  func() time.Time
	life time.Duration
	idle time.Duration
	max  int

	mu       sync.Mutex
	id       string
	secret   string
	endpoint tokenEndpoint
	byDigest map[string]*token
	order    []*token // by issue
	issued   int
	requests int
}

func newTokens(cfg Config) *tokens {
	return &tokens{
		now:      cfg.Now,
		life:     cfg.TokenLife,
		idle:     cfg.TokenIdle,
		max:      cfg.MaxTokens,
		id:       cfg.ClientID,
		secret:   cfg.ClientSecret,
		endpoint: tokenEndpoint{Mode: tokensOK},
		byDigest: make(map[string]*token),
	}
}

// digest names a token in the ledger without giving it away.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:8])
}

func (t *tokens) issue() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	value := "sandbox-" + rand.Text()
	now := t.now()
	fresh := &token{digest: digest(value), ends: now.Add(t.life), used: now}
	t.byDigest[fresh.digest] = fresh
	t.order = append(t.order, fresh)
	t.issued++
	if len(t.order) > rememberedTokens {
		delete(t.byDigest, t.order[0].digest)
		t.order = slices.Delete(t.order, 0, 1)
	}
	if t.max > 0 {
		// The newest live ones stay, as the platform has it.
		live := 0
		for _, tok := range slices.Backward(t.order) {
			if tok.dead || !now.Before(tok.ends) {
				continue
			}
			if live++; live > t.max {
				tok.dead = true
			}
		}
	}
	return value
}

// check says whether a token was ever issued, and whether it is valid now.
func (t *tokens) check(dig string) (known, valid bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tok, ok := t.byDigest[dig]
	if !ok {
		return false, false
	}
	now := t.now()
	if t.idle > 0 && now.Sub(tok.used) >= t.idle {
		tok.dead = true
	}
	if tok.dead || !now.Before(tok.ends) {
		return true, false
	}
	tok.used = now
	return true, true
}

// revoke ends one token, or all if dig is empty. It returns how many.
func (t *tokens) revoke(dig string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	revoked, now := 0, t.now()
	for _, tok := range t.order {
		if !tok.dead && now.Before(tok.ends) && (dig == "" || tok.digest == dig) {
			tok.dead = true
			revoked++
		}
	}
	return revoked
}

// arrive counts a token request and returns how it is to be treated.
func (t *tokens) arrive() tokenEndpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	endpoint := t.endpoint
	if t.endpoint.Times > 0 {
		if t.endpoint.Times--; t.endpoint.Times == 0 {
			t.endpoint.Mode = tokensOK
		}
	}
	return endpoint
}

func (t *tokens) setEndpoint(e tokenEndpoint) error {
	if e.Mode == "" {
		e.Mode = tokensOK
	}
	if !slices.Contains(tokenModes, e.Mode) {
		return fmt.Errorf("unknown mode %q: known are %s", e.Mode, strings.Join(tokenModes, ", "))
	}
	if e.Times < 0 || e.Latency < 0 {
		return fmt.Errorf("times and latency must not be negative")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endpoint = e
	return nil
}

func (t *tokens) setClient(id, secret string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id != "" {
		t.id = id
	}
	if secret != "" {
		t.secret = secret
	}
}

// authenticate returns the description of what is wrong, or "".
func (t *tokens) authenticate(r *http.Request) string {
	id, secret, ok := r.BasicAuth()
	if !ok {
		return "client not found"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !sameCredential(id, t.id):
		return "client not found"
	case !sameCredential(secret, t.secret):
		return "authentication failed"
	}
	return ""
}

// sameCredential takes a credential as it is, as Genesys' SDKs send it, or
// form-encoded, as RFC 6749 wants it and golang.org/x/oauth2 sends it.
func sameCredential(got, want string) bool {
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1 {
		return true
	}
	decoded, err := url.QueryUnescape(got)
	return err == nil && subtle.ConstantTimeCompare([]byte(decoded), []byte(want)) == 1
}

func (t *tokens) counts() (issued, requests int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.issued, t.requests
}

func (t *tokens) clearCounts() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.issued, t.requests = 0, 0
}

// serveToken is the token endpoint. Its errors are OAuth's, not the API's,
// and come with status 400, whatever they are.
func (x *exchange) serveToken() {
	if x.r.Method != http.MethodPost {
		x.notAllowed(http.MethodPost)
		return
	}
	t := x.s.tokens
	endpoint := t.arrive()
	// The form must be read before a wait: the server notices that the
	// caller left only once the body has been consumed.
	x.r.Body = http.MaxBytesReader(x.w, x.r.Body, 1<<16)
	formErr := x.r.ParseForm()
	if !x.pause(time.Duration(endpoint.Latency), true) {
		x.drop()
	}
	switch endpoint.Mode {
	case tokensDown:
		x.refuse(platformProblem(http.StatusServiceUnavailable))
		return
	case tokensRateLimited:
		x.oauthError("invalid_request", "rate limit exceeded; too many token requests")
		return
	case tokensReject:
		x.oauthError("invalid_client", "authentication failed")
		return
	case tokensEmpty:
		x.w.WriteHeader(http.StatusOK)
		return
	case tokensHang:
		x.hang(0)
	}
	mediaType, _, _ := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if formErr != nil || mediaType != "application/x-www-form-urlencoded" {
		x.oauthError("invalid_request", "the body must be application/x-www-form-urlencoded")
		return
	}
	if wrong := t.authenticate(x.r); wrong != "" {
		x.oauthError("invalid_client", wrong)
		return
	}
	if grant := x.r.PostForm.Get("grant_type"); grant != "client_credentials" {
		x.oauthError("unsupported_grant_type", "only client_credentials is supported")
		return
	}
	x.answer(jsonReply(http.StatusOK, map[string]any{
		"access_token": t.issue(),
		"token_type":   "bearer",
		"expires_in":   int64(t.life / time.Second),
	}))
}

// oauthError writes an error with both spellings of its description, as the
// login hosts do.
func (x *exchange) oauthError(code, description string) {
	x.answer(jsonReply(http.StatusBadRequest, map[string]string{
		"error":             code,
		"description":       description,
		"error_description": description,
	}))
}

// notAllowed refuses a method, naming the ones that are allowed.
func (x *exchange) notAllowed(allowed ...string) {
	p := platformProblem(http.StatusMethodNotAllowed)
	p.header = http.Header{"Allow": {strings.Join(allowed, ", ")}}
	x.refuse(p)
}
