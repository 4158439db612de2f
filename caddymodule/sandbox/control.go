package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// duration is a time.Duration that is written as "1.5s" in JSON.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("reading duration: %w", err)
	}
	*d = duration(parsed)
	return nil
}

// state is what GET /sandbox tells.
type state struct {
	Seed          uint64             `json:"seed"`
	Faults        map[string]float64 `json:"faults"`
	Script        []string           `json:"script"`
	TokenEndpoint tokenEndpoint      `json:"token_endpoint"`
	Limits        limits             `json:"limits"`
	Granted       bool               `json:"granted"`
	Latency       duration           `json:"latency"`
	KnownFaults   []FaultInfo        `json:"known_faults"`
}

func (s *Sandbox) state() state {
	st := state{
		Seed:        s.faults.seed,
		Granted:     !s.forbidden.Load(),
		Latency:     duration(s.latency),
		KnownFaults: FaultTable(),
	}
	st.Faults, st.Script = s.faults.state()
	st.Limits, _ = s.limiter.get()
	s.tokens.mu.Lock()
	st.TokenEndpoint = s.tokens.endpoint
	s.tokens.mu.Unlock()
	return st
}

// control is what one method does with one path. It returns the answer, or an
// error that is the caller's fault.
type control func(x *exchange) (any, error)

// controls are the ledger and the switches. None of them needs a token: they
// belong to whoever runs the sandbox.
var controls = map[string]map[string]control{
	"/ledger": {
		http.MethodGet:    getLedger,
		http.MethodDelete: clearLedger,
	},
	"/ledger/summary": {
		http.MethodGet: func(x *exchange) (any, error) { return x.s.Summary(), nil },
	},
	"/sandbox": {
		http.MethodGet: func(x *exchange) (any, error) { return x.s.state(), nil },
	},
	"/sandbox/faults": {
		http.MethodPut: putFaults,
	},
	"/sandbox/script": {
		http.MethodPost:   postScript,
		http.MethodDelete: clearScript,
	},
	"/sandbox/keys": {
		http.MethodDelete: forgetKeys,
	},
	"/sandbox/tokens/revoke": {
		http.MethodPost: func(x *exchange) (any, error) {
			return map[string]int{"revoked": x.s.tokens.revoke("")}, nil
		},
	},
	"/sandbox/token-endpoint": {
		http.MethodPut: putTokenEndpoint,
	},
	"/sandbox/permissions": {
		http.MethodPut: putPermissions,
	},
	"/sandbox/client": {
		http.MethodPut: putClient,
	},
	"/sandbox/limits": {
		http.MethodPut: putLimits,
	},
}

func (x *exchange) serveControl(path string) {
	methods, ok := controls[path]
	if !ok {
		x.refuse(platformProblem(http.StatusNotFound))
		return
	}
	do, ok := methods[x.r.Method]
	if !ok {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
			if _, ok := methods[method]; ok {
				allowed = append(allowed, method)
			}
		}
		x.notAllowed(allowed...)
		return
	}
	answer, err := do(x)
	if err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, errLedger) {
			status = http.StatusInternalServerError
		}
		x.refuse(platformProblem(status).with("sandbox.control.failed", err.Error()))
		return
	}
	x.answer(jsonReply(http.StatusOK, answer))
}

// errLedger marks failures that are not the caller's.
var errLedger = errors.New("ledger file")

func getLedger(x *exchange) (any, error) {
	query := x.r.URL.Query()
	return x.s.Ledger(Filter{Key: query.Get("key"), Action: query.Get("action")}), nil
}

func clearLedger(x *exchange) (any, error) {
	if err := x.s.ledger.clear(x.s.now()); err != nil {
		return nil, fmt.Errorf("clearing %w: %w", errLedger, err)
	}
	x.s.tokens.clearCounts()
	x.s.limiter.clear()
	x.s.faults.clearUses()
	return x.s.Summary(), nil
}

func forgetKeys(x *exchange) (any, error) {
	if err := x.s.ledger.write(line{Type: lineForget, Time: x.s.now()}); err != nil {
		return nil, fmt.Errorf("forgetting keys in %w: %w", errLedger, err)
	}
	x.s.keys.forget()
	return x.s.state(), nil
}

func putFaults(x *exchange) (any, error) {
	var chance map[string]float64
	if err := x.decode(&chance); err != nil {
		return nil, err
	}
	return x.stateAfter(x.s.faults.setChance(chance))
}

func postScript(x *exchange) (any, error) {
	var entries []string
	if err := x.decode(&entries); err != nil {
		return nil, err
	}
	return x.stateAfter(x.s.faults.extend(entries))
}

func clearScript(x *exchange) (any, error) {
	x.s.faults.clearScript()
	return x.s.state(), nil
}

func putTokenEndpoint(x *exchange) (any, error) {
	var endpoint tokenEndpoint
	if err := x.decode(&endpoint); err != nil {
		return nil, err
	}
	return x.stateAfter(x.s.tokens.setEndpoint(endpoint))
}

func putPermissions(x *exchange) (any, error) {
	var body struct {
		Granted *bool `json:"granted"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	if body.Granted == nil {
		return nil, errors.New(`"granted" is missing`)
	}
	x.s.forbidden.Store(!*body.Granted)
	return x.s.state(), nil
}

// putClient changes the credentials. Tokens issued before stay valid, as they
// do when a secret is rotated.
func putClient(x *exchange) (any, error) {
	var body struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	if body.ID == "" && body.Secret == "" {
		return nil, errors.New(`both "id" and "secret" are missing`)
	}
	x.s.tokens.setClient(body.ID, body.Secret)
	return x.s.state(), nil
}

func putLimits(x *exchange) (any, error) {
	var to limits
	if err := x.decode(&to); err != nil {
		return nil, err
	}
	return x.stateAfter(x.s.limiter.set(to))
}

func (x *exchange) stateAfter(err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return x.s.state(), nil
}

// decode reads the body of a control strictly: a misspelt switch that is
// ignored would make a test pass for no reason.
func (x *exchange) decode(v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(x.w, x.r.Body, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("reading request body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("reading request body: more than one JSON value")
	}
	return nil
}
