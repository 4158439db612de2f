package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// adoptGrace is how long a keyless call waits to see whether the caller of a
// call like it leaves. A client that gives up on a connection and sends again
// on another may be here again before its leaving was noticed.
const adoptGrace = 50 * time.Millisecond

// staleOrphan is the age from which an orphan past its window is given up.
const staleOrphan = time.Hour

// settleTimeout bounds the note that an answer was delivered.
const settleTimeout = 5 * time.Second

// doKeyless lets call adopt an orphan like it or else runs it under a key made
// up for it.
//
// An orphan is an unsettled call that has no caller in this process: its
// caller left before the answer was delivered, or a crash took both, or the
// caller was told that the outcome is unknown.
func (g *Gate) doKeyless(ctx context.Context, call Call) (*Outcome, error) {
	ward := g.orphans.ward(call.Adoption)
	self := &caller{present: call.Present}
	call.attendant = g.attendance(call)
	orphan, err := g.adopt(ctx, ward, self, call)
	if err != nil {
		return nil, err
	}
	if orphan != nil {
		call.ID, call.Key, call.UpstreamKey = orphan.ID, orphan.Key, orphan.UpstreamKey
		call.recorded = true
	} else {
		call.Key = RandomKey()
		call.ID, call.UpstreamKey = call.NewID(call.Key), call.NewUpstreamKey(call.Key)
		call.claiming = ward.begin(call, self)
	}

	out, err := g.doKeyed(ctx, call, orphan != nil)
	if err != nil {
		ward.detach(call.ID, self)
		if orphan != nil || errors.Is(err, context.Canceled) || ctx.Err() != nil ||
			call.Later != nil && errors.Is(err, ErrStore) { // else nothing is on record for this caller
			g.unattend(call)
		}
		return nil, err
	}
	self.answered.Store(out.Rest == nil) // a long answer may be left halfway
	out.Adopted = orphan != nil
	if out.Fate == Unsure {
		// Whoever repeats the call once this was told is to be told the same, at
		// another process too, which cannot wait to see the caller leave.
		g.unattendNow(ctx, call)
	}
	out.settle = func(delivered bool) {
		// First the note, then the leaving: a call like this one must not find
		// the answered call without its caller.
		if delivered && call.Adoption != (AdoptionID{}) {
			g.settle(call.ID, out)
		}
		ward.detach(call.ID, self)
		if !delivered && (out.Fate == Kept || out.Fate == Pending) {
			g.unattend(call)
		}
	}
	return out, nil
}

// settle notes what the caller of the call with id was told.
func (g *Gate) settle(id ID, out *Outcome) {
	if !g.use.enter() {
		return // the store is closed
	}
	defer g.use.leave()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	var err error
	switch out.Fate {
	case Kept:
		if g.shared != nil {
			g.notes.settled.add(out.owner, id)
			g.noteSettled(ctx, out.owner, id)
			return
		}
		if err = g.store.Settle(ctx, id, out.owner); err != nil {
			// Until the store has taken it, the call is no orphan all the same.
			g.notes.settled.add(out.owner, id)
			g.insist("noting the delivery of an answer", id, func(ctx context.Context) error {
				err := g.store.Settle(ctx, id, out.owner)
				if err == nil {
					g.notes.settled.remove(out.owner)
				}
				return err
			})
			return
		}
	case Unsure:
		err = g.store.Tell(ctx, id, out.owner, g.clock.Now())
	case Pending:
		g.settlePending(ctx, id, out)
	case Freed: // there is no record any more
	}
	if err != nil {
		g.log.Warn("noting the delivery of an answer", slog.String("id", id.String()), slog.Any("error", err))
	}
}

// adopt returns the oldest orphan that call may adopt, and attaches the caller
// to it, so that nobody else adopts it; or nil.
func (g *Gate) adopt(ctx context.Context, ward *ward, self *caller, call Call) (*Record, error) {
	if call.Adoption == (AdoptionID{}) {
		return nil, nil
	}
	var grace <-chan time.Time
	var dead []Process // found to be
	for last := false; ; {
		l, err := g.look(ctx, ward, self, call, dead, last)
		switch {
		case err != nil:
			return nil, err
		case l.orphan != nil:
			return l.orphan, nil
		case l.beaten:
			continue // what somebody else did is to be seen now
		case l.claimed != nil:
			select {
			case <-l.claimed:
				continue // it has been sent, and can be adopted; or it has been undone
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case last || !l.attended && len(l.elsewhere) == 0:
			return nil, nil
		}

		if grace == nil {
			timer := time.NewTimer(adoptGrace)
			defer timer.Stop()
			grace = timer.C
		}
		select {
		case <-l.left:
		case <-grace:
			// Another process that was killed has not noted that its callers
			// are gone, nor has one that stands still. Here, somebody may have
			// left meanwhile unnoticed.
			if dead, err = g.awaitSigns(ctx, l.elsewhere); err != nil {
				return nil, err
			}
			last = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look is what there is to adopt for a call.
type look struct {
	orphan    *Record       // adopted
	attended  bool          // a call like it has a caller in this process
	claimed   chan struct{} // closed when it is clear whether a call like it, whose caller has left, is sent
	left      chan struct{} // closed when one of those leaves
	elsewhere []Process     // have callers of calls like it
	beaten    bool          // an orphan's attendant changed while it was looked at
}

// look adopts the oldest orphan that call may adopt, if there is one. The processes
// in dead are known to be. Unless it is the last look, an orphan that might be sent
// has to wait while a call like it has a caller: should that one be seen to have
// left, it is the one to adopt, and what it did counts.
func (g *Gate) look(ctx context.Context, ward *ward, self *caller, call Call, dead []Process, last bool) (look, error) {
	ward.mu.Lock()
	defer ward.mu.Unlock()
	unsettled, err := g.store.Unsettled(ctx, call.Adoption)
	if err != nil {
		return look{}, storeError(err)
	}
	seen := look{left: ward.left}
	lives := lives{gate: g, dead: dead}
	var orphan *Record
	for _, rec := range unsettled {
		if ward.attendedLocked(rec.ID) {
			seen.attended = true
			continue
		}
		if g.notes.settled.has(rec.Owner) {
			continue
		}
		elsewhere, err := lives.attendedElsewhere(ctx, rec)
		if err != nil {
			return look{}, err
		}
		if elsewhere {
			seen.elsewhere = append(seen.elsewhere, rec.Attendant.Process())
			continue
		}
		adoptable, stale, err := g.adoptable(ctx, rec, &lives, call.AdoptWindow)
		if err != nil {
			return look{}, err
		}
		switch {
		case adoptable && rec.Fingerprint == call.Fingerprint:
			if orphan == nil {
				orphan = rec
			}
		case stale:
			// Left unsettled, it would be looked at by every call like it until
			// it expires.
			if err := g.store.Settle(ctx, rec.ID, rec.Owner); err != nil {
				g.log.Warn("settling a call past its window", slog.String("id", rec.ID.String()), slog.Any("error", err))
			}
		}
	}
	for _, c := range ward.claiming[call.Adoption] {
		if ward.attendedLocked(c.id) {
			seen.attended = true
		} else {
			seen.claimed = c.done
		}
	}
	if orphan == nil || orphan.State != Done && orphan.State != Unknown && !last && (seen.attended || len(seen.elsewhere) > 0) {
		return seen, nil
	}
	ours, err := g.attend(ctx, orphan, call)
	if err != nil {
		return look{}, err
	}
	if !ours {
		seen.beaten = true
		return seen, nil
	}
	ward.attachLocked(orphan.ID, self)
	seen.orphan = orphan
	return seen, nil
}

// attend makes call's caller the one that attends to rec. It fails where that
// was changed since rec was read.
func (g *Gate) attend(ctx context.Context, rec *Record, call Call) (bool, error) {
	if g.shared == nil {
		return true, nil
	}
	// A caller that leaves meanwhile would leave behind an attendance that may
	// have been noted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	ours, err := g.shared.Attend(ctx, rec.ID, rec.Attendant, call.attendant)
	if err != nil {
		call.ID = rec.ID
		g.unattend(call)
		time.AfterFunc(ClaimGrace, func() { g.unattend(call) }) // it may be noted yet
		return false, storeError(err)
	}
	return ours, nil
}

// adoptable tells whether rec, which has no caller, can still be adopted, and
// if not, whether it is too old for calls with a longer window, too.
func (g *Gate) adoptable(ctx context.Context, rec *Record, lives *lives, window time.Duration) (adoptable, stale bool, err error) {
	since, lost := g.lostSince(rec.Owner)
	if rec.State == Queued {
		return true, false, nil
	}
	if rec.State == Started && !lost {
		running := rec.Owner.Process() == g.process // or it has just ended
		if !running && g.shared != nil {
			life, err := lives.of(ctx, rec.Owner.Process())
			if err != nil {
				return false, false, err
			}
			running = life.Alive
		}
		if running {
			return true, false, nil
		}
	}
	end, err := lives.endOf(ctx, rec)
	if err != nil {
		return false, false, err
	}
	for _, t := range []time.Time{rec.Finished, rec.Told, end} {
		if t.After(since) {
			since = t
		}
	}
	age := g.clock.Now().Sub(since)
	return age <= window, age > max(window, staleOrphan), nil
}

// orphanage knows which keyless calls have a caller. It is divided by adoption
// ID so that unlike calls rarely wait for each other.
type orphanage struct{ wards [64]ward }

func (o *orphanage) ward(a AdoptionID) *ward { return &o.wards[int(a[0])%len(o.wards)] }

type ward struct {
	mu      sync.Mutex
	callers map[ID][]*caller // guarded by mu
	left    chan struct{}    // guarded by mu; closed when a call has lost its last caller

	// claiming has the calls that are not on record yet, and may be before long.
	// A call like one of them must not be sent beside it, should its caller have
	// left: it would be adopted by the next, and sent as well.
	claiming map[AdoptionID][]*claiming // guarded by mu
}

// claiming is a keyless call from when it has a key until it is clear whether it
// is sent.
type claiming struct {
	ward     *ward
	id       ID
	adoption AdoptionID
	done     chan struct{}
}

// begin attaches a caller to a call that is to be claimed.
func (w *ward) begin(call Call, c *caller) *claiming {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attachLocked(call.ID, c)
	if call.Adoption == (AdoptionID{}) {
		return nil
	}
	if w.claiming == nil {
		w.claiming = make(map[AdoptionID][]*claiming)
	}
	p := &claiming{w, call.ID, call.Adoption, make(chan struct{})}
	w.claiming[call.Adoption] = append(w.claiming[call.Adoption], p)
	return p
}

// end notes that it is clear whether the call is sent. It may be called again.
func (p *claiming) end() {
	if p == nil {
		return
	}
	p.ward.mu.Lock()
	defer p.ward.mu.Unlock()
	if isClosed(p.done) {
		return
	}
	close(p.done)
	others := slices.DeleteFunc(p.ward.claiming[p.adoption], func(other *claiming) bool { return other == p })
	if len(others) > 0 {
		p.ward.claiming[p.adoption] = others
	} else {
		delete(p.ward.claiming, p.adoption)
	}
}

// caller is who made a keyless call, or adopted one.
type caller struct {
	present  func() bool // nil: it has not been seen to leave
	answered atomic.Bool // it is being told; one that has read that may hang up at once
}

// waits tells whether the caller is to be waited for. It asks last whether there
// is an answer: a caller that is gone by then may have gone with it.
func (c *caller) waits() bool { return c.present == nil || c.present() || c.answered.Load() }

func (w *ward) attachLocked(id ID, c *caller) {
	if w.callers == nil {
		w.callers = make(map[ID][]*caller)
	}
	w.callers[id] = append(w.callers[id], c)
	if w.left == nil {
		w.left = make(chan struct{})
	}
}

// attendedLocked tells whether a call has a caller who is still there. One whose
// leaving nobody has got round to notice is not.
func (w *ward) attendedLocked(id ID) bool {
	return slices.ContainsFunc(w.callers[id], (*caller).waits)
}

func (w *ward) detach(id ID, c *caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	others := slices.DeleteFunc(w.callers[id], func(other *caller) bool { return other == c })
	if len(others) > 0 {
		w.callers[id] = others
		return
	}
	delete(w.callers, id)
	close(w.left)
	w.left = make(chan struct{})
}
