package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxBody bounds the body of an action request.
const maxBody = 10 << 20

// The families of endpoints.
const (
	familyIntegrations = "integrations"
	familyDataActions  = "dataactions"
	familyQuality      = "quality"
)

// action is what a path asks for.
type action struct {
	family    string
	operation string
	id        string // unescaped
	path      string // escaped, as received
}

// honours says whether the endpoint looks at Idempotency-Key.
func (a action) honours() bool { return a.family != familyIntegrations }

// permissions are those of which the client needs one.
func (a action) permissions() []string {
	if a.family == familyQuality {
		return []string{"quality:evaluation:add"}
	}
	if a.operation == "draft/test" {
		return []string{"integrations:action:execute"}
	}
	return []string{"integrations:action:execute", "bridge:actions:execute"}
}

// parseAction finds the action in an escaped path. It works on the escaped
// form, for an id may contain an escaped slash.
func parseAction(path string) (action, bool) {
	seg := strings.Split(strings.TrimPrefix(path, "/api/v2/"), "/")
	a := action{path: path}
	var id string
	switch {
	case len(seg) >= 4 && seg[0] == "integrations" && seg[1] == "actions":
		a.family, id, a.operation = familyIntegrations, seg[2], strings.Join(seg[3:], "/")
		if !slices.Contains([]string{"execute", "test", "draft/test"}, a.operation) {
			return action{}, false
		}
	case len(seg) == 4 && seg[0] == "dataactions" && seg[1] == "actions" && seg[3] == "invoke":
		a.family, id, a.operation = familyDataActions, seg[2], "invoke"
	case len(seg) == 4 && seg[0] == "quality" && seg[1] == "conversations" && seg[3] == "evaluations":
		a.family, id, a.operation = familyQuality, seg[2], "evaluations"
	default:
		return action{}, false
	}
	unescaped, err := url.PathUnescape(id)
	if err != nil || unescaped == "" {
		return action{}, false
	}
	a.id = unescaped
	return a, true
}

// serveAction is the way of an action request: it arrives, is admitted, meets
// its faults, executes, and is answered.
func (x *exchange) serveAction(a action) {
	body, bodyErr := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxBody))
	sum := sha256.Sum256(body)
	bodyHash := hex.EncodeToString(sum[:])
	x.arrive(a, bodyHash)

	input, refusal := x.admit(a, body, bodyErr)
	if refusal != nil {
		x.refuse(*refusal)
		return
	}
	p, err := x.plan(bodyHash)
	if err != nil {
		x.refuse(badFault(err))
		return
	}
	if x.strikeBefore(p) {
		return
	}
	res, ok := x.execute(a, p, input, bodyHash)
	if !ok {
		return
	}
	x.strikeAfter(p, res)
}

func (x *exchange) arrive(a action, bodyHash string) {
	_, port, _ := net.SplitHostPort(x.r.RemoteAddr)
	attempt := &Attempt{
		Method:     x.r.Method,
		Path:       x.r.RequestURI,
		Action:     a.id,
		Family:     a.family,
		Operation:  a.operation,
		Key:        readKey(x.r.Header),
		Call:       x.r.Header.Get("Sandbox-Call"),
		BodySHA256: bodyHash,
		RemotePort: port,
		Time:       x.s.now(),
		Headers:    slices.Sorted(maps.Keys(x.r.Header)),
	}
	if tok, ok := bearer(x.r); ok {
		attempt.TokenDigest = digest(tok)
		attempt.TokenIssued, _ = x.s.tokens.check(attempt.TokenDigest)
	}
	x.s.ledger.arrive(attempt)
	x.attempt = attempt
}

// admit refuses what the platform refuses before it runs an action. It
// returns the input of the action.
func (x *exchange) admit(a action, body []byte, bodyErr error) (json.RawMessage, *problem) {
	if p := x.authorise(); p != nil {
		return nil, p
	}
	if x.s.forbidden.Load() {
		return nil, missingPermissions(a.permissions())
	}
	if bodyErr != nil {
		p := platformProblem(http.StatusBadRequest)
		if _, tooLarge := errors.AsType[*http.MaxBytesError](bodyErr); tooLarge {
			p = platformProblem(http.StatusRequestEntityTooLarge)
		}
		return nil, &p
	}
	mediaType, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		p := platformProblem(http.StatusUnsupportedMediaType)
		return nil, &p
	}
	input, p := readInput(a, body)
	if p == nil && a.honours() {
		p = checkKey(x.r.Header, a.family == familyQuality)
	}
	return input, p
}

func readInput(a action, body []byte) (json.RawMessage, *problem) {
	if !json.Valid(body) {
		p := platformProblem(http.StatusBadRequest)
		return nil, &p
	}
	object, ok := jsonObject(body)
	if !ok {
		p := platformProblem(http.StatusBadRequest).with("invalid.schema",
			"The request body must be a JSON object.")
		return nil, &p
	}
	if a.family != familyDataActions {
		return body, nil
	}
	input := object["input"]
	if _, ok := jsonObject(input); !ok {
		p := platformProblem(http.StatusBadRequest).with("invalid.schema",
			`The request body must have an object as its member "input".`)
		return nil, &p
	}
	return input, nil
}

// jsonObject is false for null, which decodes into a nil map.
func jsonObject(raw []byte) (map[string]json.RawMessage, bool) {
	var object map[string]json.RawMessage
	err := json.Unmarshal(raw, &object)
	return object, err == nil && object != nil
}

func missingPermissions(names []string) *problem {
	const template = "Unable to perform the requested action. You must have at least one of the following permissions assigned: "
	list := "[" + strings.Join(names, ", ") + "]"
	p := platformProblem(http.StatusForbidden).with("missing.any.permissions", template+list)
	p.template = template + "{permissions}"
	p.params = map[string]string{"permissions": list}
	return &p
}

// execute lets the action take effect, or replays what it answered before.
// False means that the request has been answered already.
func (x *exchange) execute(a action, p plan, input json.RawMessage, bodyHash string) (reply, bool) {
	key := ""
	if a.honours() {
		key = readKey(x.r.Header)
	}
	fingerprint := a.path + " " + bodyHash
	if key != "" {
		replay, conflict := x.s.keys.begin(key, fingerprint)
		if conflict != nil {
			x.s.ledger.conflicted()
			x.refuse(*conflict)
			return reply{}, false
		}
		if replay != nil {
			x.s.ledger.replayed(replay.Effect)
			x.note(func(at *Attempt) { at.Replayed, at.Effect = true, replay.Effect })
			res := replay.reply()
			res.header.Set("X-Idempotent-Replay", "true")
			return res, true
		}
		// Whatever ends this before the key is bound, frees it.
		defer x.s.keys.release(key)
	}
	started := x.s.now()
	x.note(func(at *Attempt) { at.Outcome = OutcomeExecuting })
	// The caller's going away does not end this: the action is running.
	if !x.pause(x.s.latency+p.stall.wait, false) || x.s.isClosed() {
		x.drop()
	}
	memory := remembered{Fingerprint: fingerprint, Since: x.s.now()}
	if p.kind == kindFail {
		memory.Failed = true
		return x.fail(p, key, memory)
	}
	effect := &Effect{
		ID:          newUUID(),
		Action:      a.id,
		Family:      a.family,
		Operation:   a.operation,
		Path:        a.path,
		Key:         x.attempt.Key,
		BodySHA256:  bodyHash,
		TokenDigest: x.token,
		Started:     started,
		Finished:    memory.Since,
		Attempt:     x.attempt.Number,
	}
	memory.Effect = effect.ID
	memory.Body = string(result(a, effect.ID, input))
	memory.Size = p.large.size
	stored := &memory
	if key == "" {
		stored = nil
	}
	if err := x.s.ledger.execute(effect, key, stored); err != nil {
		x.ledgerFailed(err)
		return reply{}, false
	}
	x.s.keys.bind(key, memory)
	x.note(func(at *Attempt) { at.Executed, at.Effect = true, effect.ID })
	return memory.reply(), true
}

// fail binds the key to a failure of the action itself.
func (x *exchange) fail(p plan, key string, memory remembered) (reply, bool) {
	if key != "" {
		err := x.s.ledger.write(line{Type: lineFailed, Time: memory.Since, BoundKey: key, Memory: &memory})
		if err != nil {
			x.ledgerFailed(err)
			return reply{}, false
		}
		x.s.keys.bind(key, memory)
	}
	return x.failure(p.fault), true
}

// ledgerFailed answers when an effect could not be written down: nothing that
// is not in the ledger may look like a success.
func (x *exchange) ledgerFailed(err error) {
	x.s.log.Error("writing an effect", "error", err)
	x.refuse(platformProblem(http.StatusInternalServerError).with("internal.server.error",
		fmt.Sprintf("the sandbox cannot keep its ledger: %v", err)))
}

func (s *Sandbox) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}
