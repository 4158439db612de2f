package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
)

func (e InvokeEndpoint) validate() error {
	if !strings.HasPrefix(e.Path, "/") {
		return fmt.Errorf("invoke_endpoint: path %q must start with a slash", e.Path)
	}
	if strings.Contains(e.Path, "*") {
		return fmt.Errorf("invoke_endpoint: path %q is taken as it is, and must not have a *", e.Path)
	}
	if e.Action == "" {
		return fmt.Errorf("invoke_endpoint %s: the action's id is missing", e.Path)
	}
	return nil
}

// validateEndpoints checks each endpoint, and that none is in another's way.
func validateEndpoints(endpoints []InvokeEndpoint) error {
	seen := make(map[string]bool)
	for _, e := range endpoints {
		if err := e.validate(); err != nil {
			return err
		}
		if seen[e.Path] {
			return fmt.Errorf("invoke_endpoint %s: the path has an action already", e.Path)
		}
		seen[e.Path] = true
	}
	return nil
}

// invokeEndpoint returns the endpoint that r is for.
func (h *Handler) invokeEndpoint(r *http.Request) (InvokeEndpoint, bool) {
	if r.Method != http.MethodPost {
		return InvokeEndpoint{}, false
	}
	for _, e := range h.InvokeEndpoints {
		if r.URL.Path == e.Path {
			return e, true
		}
	}
	return InvokeEndpoint{}, false
}

// facadeBody is what an invoke endpoint takes.
type facadeBody struct {
	Key   *string        `json:"idempotency_key"`
	Input jsontext.Value `json:"input_payload"`
}

// serveFacade turns a request to an invoke endpoint into the call of its
// action, and answers that.
func (h *Handler) serveFacade(w http.ResponseWriter, r *http.Request, e InvokeEndpoint) error {
	began := time.Now()
	u := *r.URL
	u.RawPath = genesys.InvokePath(e.Action)
	u.Path = "/api/v2/dataactions/actions/" + e.Action + "/invoke"
	u.RawQuery = ""
	a := action{
		id:          e.Action,
		method:      http.MethodPost,
		url:         h.org.upstreamURL(&u),
		contentType: "application/json",
		honored:     h.honored(genesys.Match{Honored: true}),
	}
	reject := func(err error) error { return h.reject(w, r, &a, began, idempotency.ID{}, "", err) }

	raw, err := h.readBody(r)
	if err != nil {
		return reject(err)
	}
	key, input, err := readFacadeBody(raw)
	if err != nil {
		return reject(err)
	}
	if inHeader, err := headerKey(r.Header, "Idempotency-Key"); err != nil {
		return reject(err)
	} else if key != "" && inHeader != "" && key != inHeader {
		return reject(&problemError{slug: slugKeyInvalid,
			detail: "The header Idempotency-Key and the body's idempotency_key differ; send one of them, or the same key in both."})
	}
	a.key = key
	a.body = append(append([]byte(`{"input":`), input...), '}')
	return h.serveAction(w, r, a)
}

func readFacadeBody(raw []byte) (key string, input []byte, err error) {
	const form = `It must be {"idempotency_key": "…", "input_payload": {…}}.`
	invalid := func(what string, err error) (string, []byte, error) {
		return "", nil, &problemError{slug: slugBodyInvalid, err: err, detail: "The request's body " + what + ". " + form}
	}
	// Unlike the standard library's, this minds the case of member names, and
	// that none is there twice.
	var body facadeBody
	if err := json.Unmarshal(raw, &body); err != nil {
		return invalid("does not have the right form", err)
	}
	input = body.Input
	if body.Input.Kind() != '{' {
		return invalid("has no object input_payload", errors.New("no input_payload"))
	}
	if body.Key == nil {
		return "", input, nil
	}
	if key, err = idempotency.ParseKey(*body.Key); err != nil {
		return "", nil, &problemError{slug: slugKeyInvalid, err: err,
			detail: fmt.Sprintf("The body's idempotency_key is no key: %v. %s", err, keyForm)}
	}
	return key, input, nil
}
