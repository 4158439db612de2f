package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/test/failpoint"
	"genesys-sidecar/test/overlay"
)

// failpoints build the points into the sidecar at which it can be made to end.
var failpoints = []overlay.Edit{
	{File: "caddymodule/store/disk/group.go", Old: "package disk\n\nimport (", New: "package disk\n\nimport (\n\t\"genesys-sidecar/test/failpoint\""},
	{File: "caddymodule/store/disk/group.go", Old: "if err := g.db.ApplyNoSyncWait(", New: "failpoint.At(\"unwritten\")\n\tif err := g.db.ApplyNoSyncWait("},
	{File: "caddymodule/store/disk/guard.go", Old: "package disk\n\nimport (", New: "package disk\n\nimport (\n\t\"genesys-sidecar/test/failpoint\""},
	{File: "caddymodule/store/disk/guard.go", Old: "\t\tif err := sync(); err != nil {", New: "\t\tfailpoint.At(\"unsynced\")\n\t\tif err := sync(); err != nil {"},
	{File: "caddymodule/idempotency/fly.go", Old: "package idempotency\n\nimport (", New: "package idempotency\n\nimport (\n\t\"genesys-sidecar/test/failpoint\""},
	{File: "caddymodule/idempotency/fly.go", Old: "claim, out, err := g.claim(ctx, f, call)", New: "failpoint.At(\"unclaimed\")\n\tclaim, out, err := g.claim(ctx, f, call)"},
	{File: "caddymodule/idempotency/fly.go", Old: "\tf.ours.Store(true)\n", New: "\tf.ours.Store(true)\n\tfailpoint.At(\"claimed\")\n"},
	{File: "caddymodule/idempotency/fly.go", Old: "\tresult := g.send(ctx, call, claim)\n", New: "\tresult := g.send(ctx, call, claim)\n\tfailpoint.At(\"answered\")\n"},
	{File: "caddymodule/idempotency/fly.go", Old: "ours, err := g.record(rec, release)\n", New: "ours, err := g.record(rec, release)\n\tfailpoint.At(\"recorded\")\n"},
	{File: "caddymodule/answer.go", Old: "package caddymodule\n\nimport (", New: "package caddymodule\n\nimport (\n\t\"genesys-sidecar/test/failpoint\""},
	{File: "caddymodule/answer.go", Old: "\tstayed := !out.Tracked() || present(r.Context())\n", New: "\tstayed := !out.Tracked() || present(r.Context())\n\tfailpoint.At(\"untold\")\n"},
	{File: "caddymodule/idempotency/later.go", Old: "package idempotency\n\nimport (", New: "package idempotency\n\nimport (\n\t\"genesys-sidecar/test/failpoint\""},
	{File: "caddymodule/idempotency/later.go", Old: "\tstanding, err = g.backlog.Enqueue(ctx, next, over, bounds)\n", New: "\tfailpoint.At(\"unqueued\")\n\tstanding, err = g.backlog.Enqueue(ctx, next, over, bounds)\n\tfailpoint.At(\"queued\")\n"},
	{File: "caddymodule/async.go", Old: "package caddymodule\n\nimport (", New: "package caddymodule\n\nimport (\n\t\"genesys-sidecar/test/failpoint\""},
	{File: "caddymodule/async.go", Old: "\tstayed := !out.Tracked() || present(r.Context())\n", New: "\tstayed := !out.Tracked() || present(r.Context())\n\tfailpoint.At(\"unpromised\")\n"},
	{File: "caddymodule/async.go", Old: "\tout.Settle(err == nil && stayed)\n", New: "\tfailpoint.At(\"promised\")\n\tout.Settle(err == nil && stayed)\n"},
	{File: "caddymodule/answer.go", Old: "\tout.Settle(err == nil && stayed)\n", New: "\tfailpoint.At(\"told\")\n\tout.Settle(err == nil && stayed)\n"},
}

// buildFailing builds the sidecar that can be made to end.
var buildFailing = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(filepath.Dir(binary), "failing")
	return binary, overlay.Build(context.Background(), filepath.Dir(binary), binary, true, failpoints...)
})

// fate is what the repeat of a call is told that a killed sidecar left behind.
type fate string

const (
	runs    fate = "runs it"                // it had not been sent
	replays fate = "replays it"             // its answer was recorded
	resumes fate = "asks again, same key"   // which the upstream answers from its own record
	unknown fate = "is told: unknown (502)" // it may have run, and must not run twice
)

// The points in the order of a call, and what becomes of it.
var killed = []struct {
	point            string
	when             string
	only             string // the store, or the kind of key, that has such a point
	executed         int    // by the end of the process
	ignored, honored fate
}{
	{"unclaimed", "before its claim", "", 0, runs, runs},
	{"unwritten", "before its claim is written", "disk", 0, runs, runs},
	{"unsynced", "before its claim's fsync", "disk", 0, unknown, resumes},
	{"claimed", "after its claim", "", 0, unknown, resumes},
	{"first byte", "after the first byte sent", "", 0, unknown, resumes},
	{"last byte", "after the last byte sent", "", 1, unknown, resumes},
	{"answered", "after the upstream's answer", "", 1, unknown, resumes},
	{"recorded", "after the record", "", 1, replays, replays},
	{"untold", "before the caller's first byte", "", 1, replays, replays},
	{"told", "after the caller's last byte", "none", 1, replays, replays},
}

// TestKilledAtAnyPointOfACall shows what a kill -9 leaves of a call, at each point.
func TestKilledAtAnyPointOfACall(t *testing.T) {
	t.Parallel()
	failing, err := buildFailing()
	if err != nil {
		t.Fatal(err)
	}
	rows := []string{"killed\tstore\tupstream\tkey\texecuted before\tits repeat\texecuted in the end"}
	t.Cleanup(func() {
		var table strings.Builder
		aligned := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
		fmt.Fprintln(aligned, strings.Join(rows, "\n"))
		_ = aligned.Flush()
		t.Logf("\n%s", &table)
	})
	for _, k := range killed {
		for _, store := range []string{"disk", "redis"} {
			for _, path := range []string{execute, invoke} {
				for _, key := range []string{"k", ""} {
					upstream, want := "ignores keys", k.ignored
					if path == invoke {
						upstream, want = "honors keys", k.honored
					}
					whose := "the caller's"
					if key == "" {
						whose = "none"
					}
					if k.only != "" && k.only != store && k.only != whose {
						continue
					}
					row := len(rows)
					rows = append(rows, "") // its test begins when all have their row
					t.Run(strings.Join([]string{k.when, store, upstream, "key " + whose}, "/"), func(t *testing.T) {
						t.Parallel()
						atEnd := killAndRepeat(t, failing, k.point, store, path, key, k.executed, want)
						rows[row] = fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%d", k.when, store, upstream, whose, k.executed, want, atEnd)
					})
				}
			}
		}
	}
}

// killAndRepeat kills a sidecar at a point of a call, starts it again and repeats
// the call, and checks what comes of both. It returns how often it was executed.
func killAndRepeat(t *testing.T, failing, point, store, path, key string, executed int, want fate) int {
	p := newPlatform(t, sandbox.Config{})
	front := newCutter(t, p.url)
	armed := filepath.Join(t.TempDir(), "armed")
	o := options{}
	if store == "redis" {
		o.global = onRedis(newRedis(t).URL(), shortLease)
	}
	through := &platform{p.Sandbox, front.url}
	s := newSidecarOf(t, through, failing, o, failpoint.Point+"="+point, failpoint.Armed+"="+armed)

	before := newCall(path, "before", "") // which also fetches the token
	if a := s.send(t, before); a.status != http.StatusOK {
		t.Fatalf("before: %+v", a)
	}
	if err := os.WriteFile(armed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if point == "first byte" || point == "last byte" {
		front.cut.Store(&cut{s.cmd.Process, point == "last byte"})
	}
	call := newCall(path, key, "")
	call.body = `{"input":{"b":2}}`
	told, err := s.try(context.Background(), call)
	if wantTold := point == "told"; wantTold != (err == nil) {
		t.Errorf("the caller got %+v, %v", told, err)
	}
	<-s.ended
	s.cmd = nil
	front.cut.Store(nil)
	if executed > 0 {
		waitFor(t, func() bool { return p.Summary().Effects == 1+executed }) // what was sent is on its way
	}
	p.wantEffects(t, 1+executed)
	if err := os.Remove(armed); err != nil {
		t.Fatal(err)
	}

	s.start(t)
	repeat := s.send(t, call)
	atEnd := executed
	status, cacheStatus := http.StatusOK, "genesys; fwd=miss; stored"
	switch want {
	case runs:
		atEnd = 1
	case resumes:
		atEnd = 1
	case replays:
		cacheStatus = "genesys; hit; ttl="
	case unknown:
		status, cacheStatus = http.StatusBadGateway, "genesys; " // from the record, or after a wait for who is dead
	}
	got := repeat.header.Get("Cache-Status")
	if repeat.status != status || !strings.HasPrefix(got, cacheStatus) || strings.Contains(got, "OUTCOME-UNKNOWN") != (want == unknown) {
		t.Errorf("the repeat got %+v", repeat)
	}
	if point == "told" && told.body != repeat.body {
		t.Errorf("the repeat got %s, after %s", repeat.body, told.body)
	}
	p.wantEffects(t, 1+atEnd)

	// By its key, whoever made that up, it is answered the same ever after.
	again := call
	again.header = []string{"Idempotency-Key", repeat.header.Get("Idempotency-Key")}
	if a := s.send(t, again); a.status != repeat.status || a.body != repeat.body || !a.replayed() {
		t.Errorf("its key got %+v, after %+v", a, repeat)
	}
	if a := s.send(t, before); !a.replayed() {
		t.Errorf("the call before got %+v", a)
	}
	p.wantEffects(t, 1+atEnd)
	for _, a := range p.Ledger(sandbox.Filter{}).Attempts {
		if key != "" && a.Key != "before" && a.Key != key {
			t.Errorf("sent up under the key %q", a.Key)
		}
	}
	return atEnd
}

// cutter is a way to the sandbox that can have a process killed that sends a
// request.
type cutter struct {
	url string
	cut atomic.Pointer[cut]
}

// cut kills process: as soon as the first byte of its request has come, which goes
// no further, or, if whole, when all of it has come, which is passed on. (It is so
// short that it comes in one piece.)
type cut struct {
	process *os.Process
	whole   bool
}

func newCutter(t *testing.T, url string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{url: "http://" + ln.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.pass(conn, strings.TrimPrefix(url, "http://")) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return c
}

// pass passes a connection on.
func (c *cutter) pass(down net.Conn, address string) {
	defer down.Close()
	up, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = copyAll(down, up, nil)
		_ = down.Close()
	}()
	_ = copyAll(up, down, &c.cut)
	_ = up.Close()
	<-done
}

// copyAll copies until one end is closed or the process is to be cut off.
func copyAll(to, from net.Conn, cuts *atomic.Pointer[cut]) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		var now *cut
		if cuts != nil {
			now = cuts.Load()
		}
		if now != nil {
			// Before it is passed on: else the answer may be there first.
			if err := now.process.Kill(); err != nil || !now.whole {
				return err
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		if now != nil {
			return nil
		}
	}
}
