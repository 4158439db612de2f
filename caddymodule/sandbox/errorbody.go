package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// errorBody is Genesys Cloud's error object. The lists are never null: the
// platform writes them empty, and SDKs iterate over them unasked.
type errorBody struct {
	Message           string            `json:"message"`
	Code              string            `json:"code"`
	Status            int               `json:"status"`
	MessageWithParams string            `json:"messageWithParams,omitempty"`
	MessageParams     map[string]string `json:"messageParams,omitempty"`
	ContextID         string            `json:"contextId"`
	Details           []errorDetail     `json:"details"`
	Errors            []errorBody       `json:"errors"`
}

type errorDetail struct {
	ErrorCode  string `json:"errorCode,omitempty"`
	FieldName  string `json:"fieldName,omitempty"`
	EntityID   string `json:"entityId,omitempty"`
	EntityName string `json:"entityName,omitempty"`
}

// problem is an error answer before it has a correlation id.
type problem struct {
	status  int
	code    string
	message string
	// template and params fill messageWithParams and messageParams.
	template string
	params   map[string]string
	header   http.Header
}

// platformCodes are the codes the platform uses for its own errors. A status
// that is not here gets a code made from its standard text.
var platformCodes = map[int]struct{ code, message string }{
	400: {"bad.request", "The request could not be understood by the server due to malformed syntax."},
	401: {"bad.credentials", "Invalid login credentials."},
	403: {"not.authorized", "You are not authorized to perform the requested action."},
	404: {"not.found", "The requested resource was not found."},
	405: {"method.not.allowed", "The method is not allowed on this resource."},
	408: {"client.timeout", "The client did not send the request in time."},
	409: {"conflict", "The request conflicts with the state of the resource."},
	413: {"request.entity.too.large", "The request body is too large."},
	415: {"unsupported.media.type", "Unsupported media type: the request must be application/json."},
	429: {"too.many.requests", "Rate limit exceeded the maximum."},
	500: {"internal.server.error", "The server encountered an unexpected condition which prevented it from fulfilling the request."},
	502: {"bad.gateway", "The server received an invalid response from an upstream server."},
	503: {"service.unavailable", "Service Unavailable - The server is currently unavailable (because it is overloaded or down for maintenance)."},
	504: {"request.timeout", "The request timed out."},
}

// platformProblem is the platform's own error of a status.
func platformProblem(status int) problem {
	if known, ok := platformCodes[status]; ok {
		return problem{status: status, code: known.code, message: known.message}
	}
	text := http.StatusText(status)
	if text == "" {
		text = fmt.Sprintf("Status %d", status)
	}
	code := bytes.ReplaceAll(bytes.ToLower([]byte(text)), []byte(" "), []byte("."))
	return problem{status: status, code: string(code), message: text + "."}
}

// with replaces code and message.
func (p problem) with(code, message string) problem {
	p.code, p.message = code, message
	return p
}

// reply turns the problem into an answer. contextID must be the answer's
// ININ-Correlation-Id: support cases are opened with either.
func (p problem) reply(contextID string) reply {
	body := errorBody{
		Message:           p.message,
		Code:              p.code,
		Status:            p.status,
		MessageWithParams: p.template,
		MessageParams:     p.params,
		ContextID:         contextID,
		Details:           []errorDetail{},
		Errors:            []errorBody{},
	}
	rep := jsonReply(p.status, body)
	rep.code = p.code
	for name, values := range p.header {
		rep.header[name] = values
	}
	return rep
}

// marshal is json.Marshal without the escaping of <, > and &, so that what an
// action is given comes back as it was written.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// Only values of this package's own types come here.
		panic(fmt.Sprintf("sandbox: encoding %T: %v", v, err))
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
