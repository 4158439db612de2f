package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// toldCall is a call as the admin API tells of it.
type toldCall struct {
	ID           string        `json:"id"`
	Digest       string        `json:"digest"`
	State        string        `json:"state"`
	Organization string        `json:"organization"`
	Action       string        `json:"action"`
	Scope        string        `json:"scope"`
	Key          string        `json:"key"`
	UpstreamKey  string        `json:"upstream_key"`
	Keyless      bool          `json:"keyless"`
	Honored      bool          `json:"honored"`
	Started      time.Time     `json:"started"`
	Finished     time.Time     `json:"finished"`
	Told         time.Time     `json:"told"`
	Expires      time.Time     `json:"expires"`
	Answer       *toldAnswer   `json:"answer"`
	Attempts     []toldAttempt `json:"attempts"`
	Skipped      int           `json:"attempts_skipped"`
	Words        []toldWord    `json:"words"`
	Resolvable   bool          `json:"resolvable"`
}

type toldAnswer struct {
	Status      int         `json:"status"`
	ContentType string      `json:"content_type"`
	Size        int64       `json:"size"`
	Header      http.Header `json:"header"`
	Body        *string     `json:"body"`
	BodyBase64  []byte      `json:"body_base64"`
}

type toldAttempt struct {
	Started       time.Time `json:"started"`
	Waited        float64   `json:"waited"`
	Paused        float64   `json:"paused"`
	Paced         float64   `json:"paced"`
	Took          float64   `json:"took"`
	Written       bool      `json:"written"`
	Status        int       `json:"status"`
	CorrelationID string    `json:"correlation_id"`
	Verdict       string    `json:"verdict"`
	Error         string    `json:"error"`
}

type toldWord struct {
	Said    time.Time `json:"said"`
	Outcome string    `json:"outcome"`
	Note    string    `json:"note"`
}

// callStates are the states by which calls can be listed.
var callStates = []string{"started", "done", "unknown", "open", "queued", "released"}

// callPath returns the API's path of the call that the user named.
func callPath(id string) string { return "calls/" + url.PathEscape(id) }

func readCall(raw json.RawMessage) (toldCall, error) {
	var c toldCall
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	if c.Digest == "" && len(c.ID) >= 12 {
		c.Digest = c.ID[:12]
	}
	return c, nil
}

func (c *toldCall) answerText() string {
	if c.Answer == nil {
		return "-"
	}
	if c.Answer.Status == 0 {
		return "none"
	}
	return strconv.Itoa(c.Answer.Status)
}

// mayHaveBeenSent tells whether the call has had its turn and no attempt on record:
// they are written down when it ends, and a crash cuts that off.
func (c *toldCall) mayHaveBeenSent() bool {
	return len(c.Attempts) == 0 && c.State != "queued" && c.State != "released"
}

// sentText is how often the call was sent, as far as that is known.
func (c *toldCall) sentText() string {
	if c.mayHaveBeenSent() {
		return "?"
	}
	return strconv.Itoa(len(c.Attempts) + c.Skipped)
}

func stateColor(state string) string {
	switch state {
	case "unknown":
		return colorRed
	case "open", "started", "queued":
		return colorYellow
	case "done":
		return colorGreen
	default:
		return colorNone
	}
}
