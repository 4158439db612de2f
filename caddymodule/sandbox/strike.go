package sandbox

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// plan chooses the faults of an action request.
func (x *exchange) plan(bodyHash string) (plan, error) {
	header := strings.Join(x.r.Header.Values("Sandbox-Fault"), ",")
	if header == "" {
		return x.planned(x.s.faults.next(x.reused)), nil
	}
	list, err := parseFaults(header)
	if err != nil {
		return plan{}, err
	}
	return x.planned(x.s.faults.chosen(list, x.call(bodyHash), x.reused)), nil
}

func (x *exchange) planned(p plan) plan {
	x.note(func(a *Attempt) { a.Fault = p.String() })
	return p
}

// call names what is sent again when a request is sent again.
func (x *exchange) call(bodyHash string) string {
	if call := x.r.Header.Get("Sandbox-Call"); call != "" {
		return "call:" + call
	}
	if key := readKey(x.r.Header); key != "" {
		return "key:" + key
	}
	return "request:" + x.r.URL.EscapedPath() + " " + bodyHash
}

// badFault is the only error that is the sandbox's own and not the platform's.
func badFault(err error) problem {
	return platformProblem(http.StatusBadRequest).with("sandbox.fault.unknown", err.Error())
}

// strikeBefore answers, drops or hangs the requests that do not execute.
func (x *exchange) strikeBefore(p plan) bool {
	if p.executes {
		return false
	}
	switch p.kind {
	case kindDrop:
		x.drop()
	case kindHang:
		x.hang(p.wait)
	case kindStatus:
		if p.revoke {
			x.s.tokens.revoke(x.token)
		}
		x.deliver(p, x.failure(p.fault))
		return true
	}
	return false
}

// hang leaves the caller without an answer, for ever if d is zero.
func (x *exchange) hang(d time.Duration) {
	if d == 0 {
		d = 1<<63 - 1
	}
	x.pause(d, true)
	x.drop()
}

// strikeAfter tells, or does not tell, what the action answered.
func (x *exchange) strikeAfter(p plan, res reply) {
	x.pause(p.slow.wait, true)
	switch p.kind {
	case kindDrop, kindEarlyClose:
		x.drop()
	case kindStatus:
		res = x.failure(p.fault)
	}
	x.deliver(p, res)
}

// deliver dresses an answer as the plan wants it and writes it.
func (x *exchange) deliver(p plan, res reply) {
	if p.cookie {
		res.header.Add("Set-Cookie", "sandbox="+newUUID()+"; Path=/; HttpOnly")
	}
	if p.gzip && acceptsGzip(x.r) {
		res = res.compressed()
	}
	if p.kind == kindTruncate {
		x.truncate(res)
	}
	x.answer(res)
}

// failure is the answer of a fault with a status.
func (x *exchange) failure(f fault) reply {
	if f.remote {
		// What a service behind an action may say: JSON, but no errorBody,
		// and no code that could be taken for the platform's.
		return jsonReply(f.status, map[string]any{
			"fault": map[string]any{
				"reason":   http.StatusText(f.status),
				"upstream": "remote service of the action",
			},
		})
	}
	p := platformProblem(f.status)
	if f.status == http.StatusTooManyRequests && f.retry != retryUntold {
		p = rateLimited(int(f.wait / time.Second))
	}
	if f.code != "" {
		p.code = f.code
		p.message = "The input does not match the contract of the action."
	}
	rep := p.reply(x.correlation)
	switch f.retry {
	case retrySeconds:
		rep.header.Set("Retry-After", strconv.Itoa(int(f.wait/time.Second)))
	case retryDate:
		// The date has whole seconds: rounding up, so that it is never early.
		at := time.Now().Add(f.wait + time.Second - time.Nanosecond)
		rep.header.Set("Retry-After", at.UTC().Format(http.TimeFormat))
	}
	return rep
}
