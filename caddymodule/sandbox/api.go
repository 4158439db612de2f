package sandbox

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// serveAPI answers what needs a token.
func (x *exchange) serveAPI(path string) {
	if a, ok := parseAction(path); ok {
		if x.r.Method != http.MethodPost {
			x.s.ledger.other()
			x.notAllowed(http.MethodPost)
			return
		}
		x.serveAction(a)
		return
	}
	x.s.ledger.other()
	x.serveOther(path)
}

// bearer takes the token out of the Authorization header.
func bearer(r *http.Request) (string, bool) {
	scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	value = strings.TrimSpace(value)
	return value, ok && value != "" && strings.EqualFold(scheme, "Bearer")
}

// authorise checks the token and its rate limit.
func (x *exchange) authorise() *problem {
	value, ok := bearer(x.r)
	if !ok {
		p := platformProblem(http.StatusUnauthorized).with("authentication.required",
			"No authentication bearer token specified in authorization header.")
		return &p
	}
	dig := digest(value)
	if _, valid := x.s.tokens.check(dig); !valid {
		p := platformProblem(http.StatusUnauthorized)
		return &p
	}
	x.token = dig
	if wait := x.s.limiter.take(dig, x.w.Header()); wait > 0 {
		p := rateLimited(wait)
		return &p
	}
	return nil
}

// serveOther answers the few resources that are no actions. They meet the
// faults that a request names itself, and no others.
func (x *exchange) serveOther(path string) {
	// The server notices that the caller left only once the body is read.
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(x.w, x.r.Body, maxBody))
	if p := x.authorise(); p != nil {
		x.refuse(*p)
		return
	}
	header := strings.Join(x.r.Header.Values("Sandbox-Fault"), ",")
	list, err := parseFaults(header)
	if err != nil {
		x.refuse(badFault(err))
		return
	}
	p := x.s.faults.chosen(list, x.call(""), x.reused)
	if x.strikeBefore(p) {
		return
	}
	res, bad := x.resource(path)
	if bad != nil {
		x.refuse(*bad)
		return
	}
	if p.kind == kindFail {
		res = x.failure(p.fault)
	}
	x.strikeAfter(p, res.padded(p.large.size))
}

func (x *exchange) resource(path string) (reply, *problem) {
	get := x.r.Method == http.MethodGet
	switch {
	case get && path == "/api/v2/users/me":
		return jsonReply(http.StatusOK, map[string]string{
			"id":      "5a9db000-0000-4000-8000-000000000001",
			"name":    "Sandbox",
			"selfUri": "/api/v2/users/5a9db000-0000-4000-8000-000000000001",
		}), nil
	case get && path == "/api/v2/organizations/me":
		return jsonReply(http.StatusOK, map[string]string{
			"id":      "5a9db000-0000-4000-8000-000000000002",
			"name":    "Sandbox",
			"selfUri": "/api/v2/organizations/me",
		}), nil
	case get && path == "/api/v2/authorization/subjects/me":
		return jsonReply(http.StatusOK, x.s.subject()), nil
	case get && path == "/api/v2/integrations/actions":
		return jsonReply(http.StatusOK, map[string]any{
			"entities": []any{}, "pageSize": 25, "pageNumber": 1, "total": 0, "pageCount": 0,
		}), nil
	case get && path == "/api/v2/sandbox/stream":
		size, err := parseSize(x.r.URL.Query().Get("bytes"))
		if err != nil {
			p := platformProblem(http.StatusBadRequest).with("invalid.value", "bytes: "+err.Error())
			return reply{}, &p
		}
		return reply{
			status: http.StatusOK,
			header: http.Header{"Content-Type": {"application/octet-stream"}},
			pad:    size,
		}, nil
	}
	p := platformProblem(http.StatusNotFound)
	return reply{}, &p
}

// subject is the client with its role, as the platform tells who asks of itself.
func (s *Sandbox) subject() any {
	type policy struct {
		Domain     string   `json:"domain"`
		EntityName string   `json:"entityName"`
		Actions    []string `json:"actions"`
	}
	policies := []policy{{"integrations", "action", []string{"view", "execute"}}, {"quality", "evaluation", []string{"add"}}}
	if s.forbidden.Load() {
		policies = []policy{{"integrations", "action", []string{"view"}}}
	}
	type named map[string]any
	return named{
		"id": "5a9db000-0000-4000-8000-000000000003",
		"grants": []named{{
			"subjectId": "5a9db000-0000-4000-8000-000000000003",
			"division":  named{"id": "*", "name": "Home"},
			"role":      named{"id": "5a9db000-0000-4000-8000-000000000004", "name": "Sandbox", "policies": policies},
		}},
	}
}

// result is what an action answers: who ran, and what with.
func result(a action, id string, input json.RawMessage) []byte {
	switch a.operation {
	case "test", "draft/test":
		type step struct {
			Step    int             `json:"step"`
			Name    string          `json:"name"`
			Success bool            `json:"success"`
			Result  json.RawMessage `json:"result"`
		}
		final := marshal(executed{id, a.id, input})
		return marshal(struct {
			Operations  []step          `json:"operations"`
			FinalResult json.RawMessage `json:"finalResult"`
			Success     bool            `json:"success"`
		}{
			[]step{
				{1, "Resolve request template", true, input},
				{2, "Execute request", true, final},
			},
			final,
			true,
		})
	case "evaluations":
		return marshal(map[string]any{
			"id":           id,
			"status":       "PENDING",
			"conversation": map[string]string{"id": a.id},
			"evaluation":   input,
		})
	}
	return marshal(executed{id, a.id, input})
}

// executed is the answer of an action. Actions have no envelope on the real
// platform either: their contract decides, and this is the sandbox's.
type executed struct {
	ExecutionID string          `json:"executionId"`
	ActionID    string          `json:"actionId"`
	Input       json.RawMessage `json:"input"`
}
