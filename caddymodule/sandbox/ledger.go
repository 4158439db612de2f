package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Outcome says what the caller of an attempt was given.
type Outcome string

const (
	// OutcomePending is the outcome of an attempt that nothing came of yet.
	OutcomePending Outcome = "pending"
	// OutcomeExecuting is the outcome of an attempt whose action runs: if it
	// has a key that is honoured, the key is in use.
	OutcomeExecuting Outcome = "executing"
	// OutcomeAnswered says that a whole answer was written.
	OutcomeAnswered Outcome = "answered"
	// OutcomeTruncated says that the connection was cut within the answer.
	OutcomeTruncated Outcome = "truncated"
	// OutcomeDropped says that the connection was closed without a byte.
	OutcomeDropped Outcome = "dropped"
	// OutcomeCallerLeft says that the caller was gone before the answer.
	OutcomeCallerLeft Outcome = "caller-left"
)

// Effect is an execution of an action: what happened in the world.
type Effect struct {
	// ID is the executionId of the answer (the id, for an evaluation).
	ID string `json:"id"`
	// Action is the unescaped id of the action, or of the conversation.
	Action string `json:"action"`
	// Family is "integrations", "dataactions" or "quality"; Operation is
	// "execute", "test", "draft/test", "invoke" or "evaluations".
	Family    string `json:"family"`
	Operation string `json:"operation"`
	// Path is the path as it was received, escaped, without the query.
	Path string `json:"path"`
	// Key is the Idempotency-Key that came with it, honoured or not.
	Key         string    `json:"key,omitempty"`
	BodySHA256  string    `json:"body_sha256"`
	TokenDigest string    `json:"token_digest"`
	Started     time.Time `json:"started"`
	Finished    time.Time `json:"finished"`
	// Attempt is the number of the attempt that executed. Replays counts the
	// attempts that were told the answer again.
	Attempt int `json:"attempt"`
	Replays int `json:"replays"`
}

// Attempt is an action request that arrived, executed or not.
type Attempt struct {
	Number int    `json:"number"`
	Method string `json:"method"`
	// Path is the request target as it was received, with the query.
	Path      string `json:"path"`
	Action    string `json:"action"`
	Family    string `json:"family"`
	Operation string `json:"operation"`
	Key       string `json:"key,omitempty"`
	// Call is the header Sandbox-Call.
	Call       string `json:"call,omitempty"`
	BodySHA256 string `json:"body_sha256"`
	// Fault is what was done to the request, as Sandbox-Fault has it.
	Fault    string `json:"fault,omitempty"`
	Executed bool   `json:"executed"`
	Replayed bool   `json:"replayed"`
	// Effect is the id of the effect executed or replayed.
	Effect  string  `json:"effect,omitempty"`
	Outcome Outcome `json:"outcome"`
	// Status is that of the answer, 0 if there was none; Code is the code of
	// its error, if it was one of the platform's.
	Status int    `json:"status"`
	Code   string `json:"code,omitempty"`
	// RemotePort is the caller's: one port, one connection.
	RemotePort string    `json:"remote_port"`
	Time       time.Time `json:"time"`
	// Headers are the names of the request's headers, sorted.
	Headers []string `json:"headers"`
	// TokenIssued says that the bearer token was issued by this sandbox,
	// still valid or not. TokenDigest is empty without a bearer token.
	TokenIssued bool   `json:"token_issued"`
	TokenDigest string `json:"token_digest,omitempty"`
}

// Summary is the ledger in numbers.
type Summary struct {
	Effects       int `json:"effects"`
	Attempts      int `json:"attempts"`
	Replays       int `json:"replays"`
	Conflicts     int `json:"conflicts"`
	TokensIssued  int `json:"tokens_issued"`
	TokenRequests int `json:"token_requests"`
	// OverLimit counts the API requests beyond the rate limit.
	OverLimit int `json:"over_limit"`
	// OtherRequests counts the API requests that were no actions.
	OtherRequests int `json:"other_requests"`
	// ForgottenAttempts counts those too old to be listed.
	ForgottenAttempts int    `json:"forgotten_attempts"`
	Seed              uint64 `json:"seed"`
}

// Ledger is what the sandbox did and saw, in the order of the execution and
// of the arrival.
type Ledger struct {
	Effects  []Effect  `json:"effects"`
	Attempts []Attempt `json:"attempts"`
	// Summary is of the whole ledger, whatever the filter.
	Summary Summary `json:"summary"`
}

// Filter selects from the ledger. Empty fields select everything.
type Filter struct {
	Key    string
	Action string
}

// rememberedAttempts bounds the attempts that are kept; effects all are.
const rememberedAttempts = 200_000

// line is a line of the ledger file.
type line struct {
	Type string    `json:"type"`
	Time time.Time `json:"time"`
	*Effect
	// BoundKey and Memory are there if the key is to be remembered.
	BoundKey string      `json:"bound_key,omitempty"`
	Memory   *remembered `json:"memory,omitempty"`
}

// The types of lines.
const (
	lineEffect = "effect"
	lineFailed = "failed" // a key is bound to a failure
	lineClear  = "clear"  // the ledger was cleared
	lineForget = "forget" // the keys were forgotten
)

type ledger struct {
	journal *journal
	limit   int // of attempts

	mu        sync.Mutex
	effects   []*Effect
	byID      map[string]*Effect
	attempts  []*Attempt // a ring once it is full
	oldest    int        // index in attempts
	arrived   int        // attempts since the last clearing
	number    int        // of the last attempt
	replays   int
	conflicts int
	others    int
}

// openLedger loads the file, if there is one, and what it says about keys.
func openLedger(file string, k *keys) (*ledger, error) {
	l := &ledger{limit: rememberedAttempts, byID: make(map[string]*Effect)}
	if file == "" {
		return l, nil
	}
	j, err := openJournal(file, func(raw []byte) error { return l.load(raw, k) })
	if err != nil {
		return nil, err
	}
	l.journal = j
	return l, nil
}

func (l *ledger) load(raw []byte, k *keys) error {
	var ln line
	if err := json.Unmarshal(raw, &ln); err != nil {
		return fmt.Errorf("decoding: %w", err)
	}
	switch ln.Type {
	case lineEffect:
		if ln.Effect == nil {
			return fmt.Errorf("decoding: effect without content")
		}
		if ln.Memory != nil {
			ln.Memory.Effect = ln.ID
		}
		l.keep(ln.Effect)
		l.number = max(l.number, ln.Attempt)
	case lineFailed:
	case lineClear:
		l.drop()
	case lineForget:
		k.forget()
	default:
		return fmt.Errorf("decoding: unknown type %q", ln.Type)
	}
	if ln.Memory != nil {
		k.bind(ln.BoundKey, *ln.Memory)
	}
	return nil
}

func (l *ledger) keep(e *Effect) {
	l.effects = append(l.effects, e)
	l.byID[e.ID] = e
}

func (l *ledger) drop() {
	l.effects, l.attempts = nil, nil
	clear(l.byID)
	l.oldest, l.arrived, l.replays, l.conflicts, l.others = 0, 0, 0, 0, 0
}

// arrive takes an attempt in. The caller changes it only under l.mu.
func (l *ledger) arrive(a *Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	l.arrived++
	a.Number = l.number
	a.Outcome = OutcomePending
	if len(l.attempts) < l.limit {
		l.attempts = append(l.attempts, a)
		return
	}
	l.attempts[l.oldest] = a
	l.oldest = (l.oldest + 1) % l.limit
}

// execute makes the effect happen: it is in the ledger, and on the disk if
// there is a file, when execute returns nil.
func (l *ledger) execute(e *Effect, key string, m *remembered) error {
	raw := marshal(line{Type: lineEffect, Time: e.Finished, Effect: e, BoundKey: key, Memory: m})
	l.mu.Lock()
	// Memory and file are in the same order, whatever clears the ledger
	// meanwhile; the attempt counts as executed only after the wait.
	wait := l.journal.append(raw)
	l.keep(e)
	l.mu.Unlock()
	return wait()
}

func (l *ledger) write(ln line) error {
	return l.journal.append(marshal(ln))()
}

func (l *ledger) replayed(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replays++
	// A cleared ledger does not know the effects of older keys.
	if e, ok := l.byID[id]; ok {
		e.Replays++
	}
}

func (l *ledger) conflicted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conflicts++
}

func (l *ledger) other() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others++
}

// clear empties the ledger. Attempts under way are still numbered on, but
// listed no more.
func (l *ledger) clear(now time.Time) error {
	l.mu.Lock()
	wait := l.journal.append(marshal(line{Type: lineClear, Time: now}))
	l.drop()
	l.mu.Unlock()
	return wait()
}

func (l *ledger) close() error { return l.journal.close() }

// summary leaves what others count at zero.
func (l *ledger) summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Summary{
		Effects:           len(l.effects),
		Attempts:          l.arrived,
		Replays:           l.replays,
		Conflicts:         l.conflicts,
		OtherRequests:     l.others,
		ForgottenAttempts: l.arrived - len(l.attempts),
	}
}

func (l *ledger) list(f Filter) (effects []Effect, attempts []Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	effects, attempts = []Effect{}, []Attempt{}
	matches := func(key, action string) bool {
		return (f.Key == "" || f.Key == key) && (f.Action == "" || f.Action == action)
	}
	for _, e := range l.effects {
		if matches(e.Key, e.Action) {
			effects = append(effects, *e)
		}
	}
	for _, part := range [][]*Attempt{l.attempts[l.oldest:], l.attempts[:l.oldest]} {
		for _, a := range part {
			if matches(a.Key, a.Action) {
				attempts = append(attempts, *a)
			}
		}
	}
	return slices.Clip(effects), slices.Clip(attempts)
}

// Ledger returns a copy of what the sandbox did and saw.
func (s *Sandbox) Ledger(f Filter) Ledger {
	effects, attempts := s.ledger.list(f)
	return Ledger{effects, attempts, s.Summary()}
}

// Summary returns the ledger in numbers.
func (s *Sandbox) Summary() Summary {
	sum := s.ledger.summary()
	sum.TokensIssued, sum.TokenRequests = s.tokens.counts()
	_, sum.OverLimit = s.limiter.get()
	sum.Seed = s.faults.seed
	return sum
}
