package genesys

import (
	"encoding/json"
	"mime"
	"strings"
)

// ErrorBody is the JSON object in which the platform reports an error; the
// fields are those of Genesys' Go SDK (errorbody.go, detail.go, limit.go).
type ErrorBody struct {
	Message           string            `json:"message,omitempty"`
	Code              string            `json:"code"`
	Status            int               `json:"status,omitempty"`
	EntityID          string            `json:"entityId,omitempty"`
	EntityName        string            `json:"entityName,omitempty"`
	MessageWithParams string            `json:"messageWithParams,omitempty"`
	MessageParams     map[string]string `json:"messageParams,omitempty"`
	// ContextID is the correlation id, the same as in ININ-Correlation-Id.
	ContextID string        `json:"contextId,omitempty"`
	Details   []ErrorDetail `json:"details,omitempty"`
	Errors    []ErrorBody   `json:"errors,omitempty"`
	Limit     *ErrorLimit   `json:"limit,omitempty"`
}

// ErrorDetail names one field or entity that an error is about.
type ErrorDetail struct {
	ErrorCode  string `json:"errorCode,omitempty"`
	FieldName  string `json:"fieldName,omitempty"`
	EntityID   string `json:"entityId,omitempty"`
	EntityName string `json:"entityName,omitempty"`
}

// ErrorLimit names the limit that was exceeded.
type ErrorLimit struct {
	Key       string `json:"key,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Value     string `json:"value,omitempty"`
}

// maxErrorDepth is how deep errors within errors are read.
const maxErrorDepth = 4

// ParseErrorBody reads the platform's error from an answer. It reports false
// unless the body is a JSON object with a non-empty string "code": the code is
// what tells the platform's own word from that of a service behind it. Every
// other field is read if it has the expected type, else left empty, as
// throwing the code away for a surprising "status" would lose what matters.
//
// An answer without a Content-Type is taken for JSON, any other media type
// than JSON is not: a gateway's HTML page never has a code.
//
// The whole body is decoded, so the caller bounds its size.
func ParseErrorBody(contentType string, body []byte) (ErrorBody, bool) {
	if contentType != "" {
		mediaType, _, err := mime.ParseMediaType(contentType)
		isJSON := mediaType == "application/json" || strings.Contains(mediaType, "/") && strings.HasSuffix(mediaType, "+json")
		if err != nil && mediaType == "" || !isJSON {
			return ErrorBody{}, false
		}
	}
	return parseErrorBody(body, maxErrorDepth)
}

func parseErrorBody(body []byte, depth int) (ErrorBody, bool) {
	// Names are compared exactly. Decoding into ErrorBody itself would take
	// "CODE" for "code", and stop at the first field of another type.
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return ErrorBody{}, false
	}
	var e ErrorBody
	read(fields, "code", &e.Code)
	if e.Code == "" {
		return ErrorBody{}, false
	}
	read(fields, "message", &e.Message)
	read(fields, "status", &e.Status)
	read(fields, "entityId", &e.EntityID)
	read(fields, "entityName", &e.EntityName)
	read(fields, "messageWithParams", &e.MessageWithParams)
	read(fields, "messageParams", &e.MessageParams)
	read(fields, "contextId", &e.ContextID)
	read(fields, "details", &e.Details)
	read(fields, "limit", &e.Limit)
	if depth > 0 {
		var nested []json.RawMessage
		read(fields, "errors", &nested)
		for _, n := range nested {
			if sub, ok := parseErrorBody(n, depth-1); ok {
				e.Errors = append(e.Errors, sub)
			}
		}
	}
	return e, true
}

// read decodes one field, or leaves v as the zero value if that fails.
func read[T any](fields map[string]json.RawMessage, name string, v *T) {
	raw, ok := fields[name]
	if !ok {
		return
	}
	var decoded T
	if json.Unmarshal(raw, &decoded) == nil {
		*v = decoded
	}
}

// PlatformAuthCode reports whether code, on a 401, says that the platform
// itself did not accept the token. Then the action did not run, and a new token
// may help.
//
// Not among them: "invalid.credentials", which can be the remote service's, and
// "authentication.request.timeout", which comes with a 504 and says that the
// platform could not check the token: a new one would not change that.
func PlatformAuthCode(code string) bool {
	switch code {
	case "authentication.required", "bad.credentials", "credentials.expired":
		return true
	}
	return false
}

// RateLimitCode reports whether code says that the platform's rate limit was
// exceeded: too.many.requests or one of its kinds, as
// too.many.requests.retry.after.
func RateLimitCode(code string) bool {
	return code == "too.many.requests" || strings.HasPrefix(code, "too.many.requests.")
}

// RefusedBeforeRunning reports whether a 4xx with this code is a refusal that
// the platform gives before it runs an action: no token, no permission, no such
// action, an input against the contract, another media type. The codes are
// those documented for executing an action, each with its own status only, as
// the same word under another status may be somebody else's.
//
// "no.results" and "too.many.results" are not among them although they are
// 400s: the action ran. Neither is a rate limit: see RateLimitCode. What is
// not known to be a refusal is none.
func RefusedBeforeRunning(status int, code string) bool {
	switch status {
	case 400:
		switch code {
		case "bad.request", "invalid.date", "invalid.schema", "invalid.value":
			return true
		}
	case 401:
		return PlatformAuthCode(code)
	case 403:
		switch code {
		case "missing.any.permissions", "missing.permissions", "not.authorized":
			return true
		}
	case 404:
		return code == "not.found"
	case 415:
		return code == "unsupported.media.type"
	}
	return false
}
