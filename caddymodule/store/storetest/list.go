package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// lister returns the store as a Lister, or skips the test.
func (f *fixture) lister() idempotency.Lister {
	f.t.Helper()
	lister, ok := f.Store.(idempotency.Lister)
	if !ok {
		f.t.Skip("this store cannot be listed")
	}
	return lister
}

// list returns all pages of q, and how many they were.
func (f *fixture) list(q idempotency.Query) (recs []*idempotency.Record, pages int) {
	f.t.Helper()
	for {
		page := f.page(q)
		pages++
		recs = append(recs, page.Records...)
		if page.Next.IsZero() {
			return recs, pages
		}
		if page.Next == q.After {
			f.t.Fatalf("page %d leads to itself", pages)
		}
		q.After = page.Next
	}
}

func (f *fixture) page(q idempotency.Query) idempotency.Listing {
	f.t.Helper()
	page, err := f.lister().List(f.ctx, q)
	if err != nil {
		f.fatalf("listing: %v", err)
	}
	if q.Limit > 0 && len(page.Records) > q.Limit {
		f.t.Fatalf("a page has %d records, %d were asked for", len(page.Records), q.Limit)
	}
	return page
}

// wantListed fails the test unless q finds exactly want, in this order.
func (f *fixture) wantListed(q idempotency.Query, want ...*idempotency.Record) {
	f.t.Helper()
	got, _ := f.list(q)
	if len(got) != len(want) {
		f.fatalf("%d records are listed (%s), want %d", len(got), keysOf(got), len(want))
	}
	for i := range got {
		f.wantSame(withBodyOf(got[i], want[i]), want[i])
	}
}

func keysOf(recs []*idempotency.Record) (keys []string) {
	for _, rec := range recs {
		keys = append(keys, rec.Key)
	}
	return keys
}

// withBodyOf returns rec with the body of other, if a listing has left that out.
func withBodyOf(rec, other *idempotency.Record) *idempotency.Record {
	if rec != nil && rec.Deferred != nil && rec.Deferred.Body == nil && other.Deferred != nil {
		c, call := *rec, *rec.Deferred
		call.Body = other.Deferred.Body
		c.Deferred = &call
		return &c
	}
	if rec == nil || rec.Answer == nil || rec.Answer.Body != nil || other.Answer == nil {
		return rec
	}
	c := *rec
	c.Answer = &idempotency.Answer{Status: rec.Answer.Status, Header: rec.Answer.Header, Body: other.Answer.Body}
	return &c
}

func (f *fixture) wantTally(want map[idempotency.State]int) {
	f.t.Helper()
	got, err := f.lister().Tally(f.ctx)
	if err != nil {
		f.fatalf("counting: %v", err)
	}
	maps.DeleteFunc(got, func(_ idempotency.State, n int) bool { return n == 0 })
	if !maps.Equal(got, want) {
		f.errorf("there are %v, want %v", got, want)
	}
}

// startedAt is started, at a time after the epoch.
func (f *fixture) startedAt(name string, after time.Duration) *idempotency.Record {
	rec := f.started(name)
	rec.Started = f.epoch.Add(after)
	return rec
}

// in returns rec as it is in state.
func inState(rec *idempotency.Record, state idempotency.State) *idempotency.Record {
	u := unknown(rec)
	u.State = state
	return u
}

// claimMany claims, and finishes as done, n records that start a millisecond after
// each other, from many goroutines.
func (f *fixture) claimMany(n int) []*idempotency.Record {
	f.t.Helper()
	recs := make([]*idempotency.Record, n)
	errs := make(chan error, n)
	var wg sync.WaitGroup
	for w := range racers {
		wg.Go(func() {
			for i := w; i < n; i += racers {
				rec := f.startedAt(fmt.Sprint("many", i), time.Duration(i)*time.Millisecond)
				_, err := f.Claim(f.ctx, rec, idempotency.Owner{})
				recs[i] = done(rec)
				errs <- errors.Join(err, f.Finish(f.ctx, recs[i]))
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			f.t.Fatalf("claiming many: %v", err)
		}
	}
	return recs
}

var listTests = []test{
	{"an empty store lists nothing", func(t *testing.T, f *fixture) {
		f.wantListed(idempotency.Query{})
		f.wantTally(map[idempotency.State]int{})
	}},

	{"the latest started is the first", func(t *testing.T, f *fixture) {
		var want []*idempotency.Record
		for _, after := range []time.Duration{2, 0, time.Hour, 1, time.Millisecond} {
			rec := f.startedAt(fmt.Sprint(after), after)
			rec.Label, rec.Journal = label(), journal(f.epoch)
			f.claim(rec, idempotency.Owner{})
			want = append(want, rec)
		}
		f.finish(done(want[2]))
		want[2] = done(want[2])
		slices.SortFunc(want, func(a, b *idempotency.Record) int { return b.Started.Compare(a.Started) })
		f.wantListed(idempotency.Query{}, want...)
	}},

	{"of those that started at the same time the greatest ID is the first", func(t *testing.T, f *fixture) {
		var want []*idempotency.Record
		for i := range 20 {
			rec := f.startedAt(fmt.Sprint(i), time.Minute)
			f.claim(rec, idempotency.Owner{})
			want = append(want, rec)
		}
		slices.SortFunc(want, func(a, b *idempotency.Record) int { return slices.Compare(b.ID[:], a.ID[:]) })
		for _, limit := range []int{0, 1, 7, 20} {
			f.wantListed(idempotency.Query{Limit: limit}, want...)
		}
	}},

	{"a record of any size is listed with all but its body", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		rec.Honored = true
		f.claim(rec, idempotency.Owner{})
		rec = done(rec)
		rec.Label, rec.Journal = label(), journal(f.epoch)
		rec.Answer.Body = make([]byte, largeBody)
		f.finish(rec)
		f.wantListed(idempotency.Query{}, rec)
		bare := unknown(f.started("b"))
		bare.Key, bare.UpstreamKey = "", ""
		bare.Started = f.epoch.Add(-time.Second)
		f.claim(bare, idempotency.Owner{})
		f.wantListed(idempotency.Query{}, rec, bare)
	}},

	{"only what is asked for is listed", func(t *testing.T, f *fixture) {
		states := []idempotency.State{
			idempotency.Started, idempotency.Done, idempotency.Unknown, idempotency.Open, idempotency.Released,
		}
		x, y := idempotency.NewScopeID("org", "x"), idempotency.NewScopeID("org", "y")
		var all []*idempotency.Record
		for i := range 30 {
			rec := f.startedAt(fmt.Sprint(i), -time.Duration(i)*time.Second)
			rec.Label.Action = []string{"a", "b", "A"}[i%3]
			rec.Label.Scope = []idempotency.ScopeID{x, y}[i%2]
			f.claim(rec, idempotency.Owner{})
			if s := states[i%5]; s != idempotency.Started {
				rec = inState(rec, s)
				f.finish(rec)
			}
			all = append(all, rec)
		}
		for _, q := range []idempotency.Query{
			{},
			{States: []idempotency.State{idempotency.Unknown}},
			{States: []idempotency.State{idempotency.Done}},
			{States: []idempotency.State{idempotency.Started, idempotency.Released}},
			{States: states},
			{Action: "a"},
			{Action: "none"},
			{Scopes: []idempotency.ScopeID{y}},
			{Scopes: []idempotency.ScopeID{y, x}},
			{Scopes: []idempotency.ScopeID{{}}},
			{Since: f.epoch.Add(-9 * time.Second)},
			{Since: f.epoch.Add(-9*time.Second + 1)},
			{Since: f.epoch.Add(time.Second)},
			{States: []idempotency.State{idempotency.Open}, Since: f.epoch.Add(-20 * time.Second)},
			{States: []idempotency.State{idempotency.Open, idempotency.Done}, Action: "b", Scopes: []idempotency.ScopeID{x}},
			{After: idempotency.Position{Started: all[7].Started, ID: all[7].ID}},
		} {
			var want []*idempotency.Record
			for _, rec := range all {
				if q.Matches(rec) && q.After.Before(rec) {
					want = append(want, rec)
				}
			}
			for _, limit := range []int{0, 1, 4} {
				q.Limit = limit
				f.wantListed(q, want...)
			}
		}
		f.wantTally(map[idempotency.State]int{
			idempotency.Started: 6, idempotency.Unknown: 6, idempotency.Open: 6, idempotency.Released: 6,
		})
	}},

	{"without a limit a page has as many records as by default", func(t *testing.T, f *fixture) {
		f.claimMany(idempotency.DefaultLimit + 1)
		page := f.page(idempotency.Query{})
		if len(page.Records) != idempotency.DefaultLimit || page.Next.IsZero() {
			t.Errorf("there are %d records, and then %v", len(page.Records), page.Next)
		}
	}},

	{"a full page that is the last says so", func(t *testing.T, f *fixture) {
		f.claimMany(5)
		if page := f.page(idempotency.Query{Limit: 5}); len(page.Records) != 5 || !page.Next.IsZero() {
			t.Errorf("there are %d records, and then %v", len(page.Records), page.Next)
		}
	}},

	{"what is released is listed no more", func(t *testing.T, f *fixture) {
		a, b := f.startedAt("a", 1), f.startedAt("b", 2)
		f.claim(a, idempotency.Owner{})
		f.claim(b, idempotency.Owner{})
		f.finish(done(b))
		f.release(a.ID, a.Owner)
		f.wantListed(idempotency.Query{}, done(b))
		f.wantTally(map[idempotency.State]int{})
		f.release(b.ID, b.Owner)
		f.wantListed(idempotency.Query{})
	}},

	{"what is released and claimed again is listed once", func(t *testing.T, f *fixture) {
		a := f.started("a")
		for range 3 {
			f.claim(a, idempotency.Owner{})
			f.release(a.ID, a.Owner)
			a = f.started("a")
		}
		f.claim(a, idempotency.Owner{})
		f.finish(unknown(a))
		f.wantListed(idempotency.Query{}, unknown(a))
		f.wantListed(idempotency.Query{States: []idempotency.State{idempotency.Unknown}}, unknown(a))
		f.finish(done(a))
		f.wantListed(idempotency.Query{States: []idempotency.State{idempotency.Unknown}})
		f.release(a.ID, a.Owner)
		f.wantListed(idempotency.Query{})
	}},

	{"a claim that is refused is not listed", func(t *testing.T, f *fixture) {
		a := f.startedAt("a", 0)
		f.claim(a, idempotency.Owner{})
		f.tryClaim(f.startedAt("a", time.Hour), idempotency.Owner{})
		f.tryClaim(f.startedAt("a", 0), idempotency.Owner{})
		f.tryClaim(f.startedAt("a", -time.Second), process.NewOwner())
		f.wantListed(idempotency.Query{}, a)
		f.finish(done(a))
		f.tryClaim(f.startedAt("a", time.Minute), idempotency.Owner{})
		f.wantListed(idempotency.Query{}, done(a))
		f.wantTally(map[idempotency.State]int{})
		f.wantListed(idempotency.Query{States: []idempotency.State{idempotency.Started}})
	}},

	{"a take-over is listed once, where it started", func(t *testing.T, f *fixture) {
		a, b := f.startedAt("a", time.Second), f.startedAt("b", 2*time.Second)
		f.claim(a, idempotency.Owner{})
		f.claim(b, idempotency.Owner{})
		for _, after := range []time.Duration{time.Second, 3 * time.Second, time.Second, 0} {
			next := f.startedAt("a", after)
			f.claim(next, a.Owner)
			a = next
			if after > 2*time.Second {
				f.wantListed(idempotency.Query{}, a, b)
			} else {
				f.wantListed(idempotency.Query{}, b, a)
			}
			f.wantTally(map[idempotency.State]int{idempotency.Started: 2})
		}
		f.finish(done(a))
		next := f.startedAt("a", time.Hour)
		f.claim(next, a.Owner)
		f.wantListed(idempotency.Query{}, next, b)
		f.wantTally(map[idempotency.State]int{idempotency.Started: 2})
		f.finish(done(next))
		f.wantTally(map[idempotency.State]int{idempotency.Started: 1})
	}},

	{"finishing may change when a record started", func(t *testing.T, f *fixture) {
		a, b := f.startedAt("a", time.Second), f.startedAt("b", 2*time.Second)
		f.claim(a, idempotency.Owner{})
		f.claim(b, idempotency.Owner{})
		open := inState(a, idempotency.Open)
		open.Started = f.epoch.Add(3 * time.Second)
		f.finish(open)
		f.wantListed(idempotency.Query{}, open, b)
		f.wantListed(idempotency.Query{States: []idempotency.State{idempotency.Open}}, open)
		f.wantTally(map[idempotency.State]int{idempotency.Started: 1, idempotency.Open: 1})
		last := done(a)
		f.finish(last)
		f.wantListed(idempotency.Query{}, b, last)
		f.wantTally(map[idempotency.State]int{idempotency.Started: 1})
	}},

	{"a record that stays is on exactly one page whatever else changes", func(t *testing.T, f *fixture) {
		all := f.claimMany(120)
		seen := make(map[idempotency.ID]int)
		q := idempotency.Query{Limit: 7}
		for i := 0; ; i++ {
			page := f.page(q)
			for _, rec := range page.Records {
				seen[rec.ID]++
			}
			if page.Next.IsZero() {
				break
			}
			q.After = page.Next
			// What goes, is changed, and comes, around and at the cursor.
			for _, j := range []int{3 * i, 119 - 6*i} {
				if rec := all[max(j, 0)]; j%3 == 0 && j >= 0 && seen[rec.ID] < 100 {
					f.release(rec.ID, rec.Owner)
					seen[rec.ID] = 100
				}
			}
			late := f.startedAt(fmt.Sprint("late", i), time.Duration(i*7)*time.Millisecond+1)
			f.claim(late, idempotency.Owner{})
			seen[late.ID] = 100
		}
		for i, rec := range all {
			if i%3 != 0 && seen[rec.ID] != 1 {
				t.Errorf("record %d was on %d pages", i, seen[rec.ID])
			}
		}
	}},

	{"the few that are not done are found at once among many that are", func(t *testing.T, f *fixture) {
		lost, running := f.startedAt("lost", -time.Hour), f.startedAt("running", -2*time.Hour)
		f.claim(lost, idempotency.Owner{})
		f.finish(unknown(lost))
		f.claim(running, idempotency.Owner{})
		f.claimMany(2500)
		states := []idempotency.State{idempotency.Unknown, idempotency.Started}
		page := f.page(idempotency.Query{States: states, Limit: 10})
		if len(page.Records) != 2 || !page.Next.IsZero() {
			t.Fatalf("there are %s, and then %v", keysOf(page.Records), page.Next)
		}
		f.wantListed(idempotency.Query{States: states}, unknown(lost), running)
		if _, pages := f.list(idempotency.Query{Action: "none"}); pages < 2 {
			t.Error("a page of records among which there is none looked at all of them")
		}
	}},

	{"reopening keeps what is listed", func(t *testing.T, f *fixture) {
		a, b, c := f.startedAt("a", 1), f.startedAt("b", 2), f.startedAt("c", 3)
		for _, rec := range []*idempotency.Record{a, b, c} {
			f.claim(rec, idempotency.Owner{})
		}
		f.finish(done(a))
		f.finish(unknown(c))
		f.reopen()
		f.wantListed(idempotency.Query{}, unknown(c), b, done(a))
		f.wantListed(idempotency.Query{States: []idempotency.State{idempotency.Unknown}}, unknown(c))
		f.finish(done(c))
		f.finish(done(b))
		f.wantTally(map[idempotency.State]int{})
	}},

	{"a cancelled context lists nothing", func(t *testing.T, f *fixture) {
		f.claim(f.started("a"), idempotency.Owner{})
		ctx, cancel := context.WithCancel(f.ctx)
		cancel()
		_, listErr := f.lister().List(ctx, idempotency.Query{})
		_, tallyErr := f.lister().Tally(ctx)
		for _, err := range []error{listErr, tallyErr} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got the error %v, want %q", err, context.Canceled)
			}
		}
	}},

	{"listing and changing at once do not disturb each other", func(t *testing.T, f *fixture) {
		f.lister()
		stay := f.claimMany(30)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					rec := f.startedAt(fmt.Sprint("w", w, i%5), time.Duration(i%40)*time.Millisecond)
					if standing, err := f.Claim(f.ctx, rec, idempotency.Owner{}); err != nil || standing != nil {
						t.Errorf("claiming: %v, %v", show(standing), err)
						return
					}
					end := unknown(rec)
					end.Started = end.Started.Add(time.Duration(i%3) * time.Millisecond)
					if err := errors.Join(f.Finish(f.ctx, end), f.Release(f.ctx, rec.ID, rec.Owner)); err != nil {
						t.Errorf("ending: %v", err)
						return
					}
				}
			})
		}
		for range 10 {
			recs, _ := f.list(idempotency.Query{Limit: 10})
			n := 0
			for _, rec := range recs {
				if slices.ContainsFunc(stay, func(s *idempotency.Record) bool { return s.ID == rec.ID }) {
					n++
				}
			}
			if n != len(stay) {
				t.Errorf("%d of those that stay were listed, want %d", n, len(stay))
			}
			if _, err := f.lister().Tally(f.ctx); err != nil {
				t.Errorf("counting: %v", err)
			}
		}
		close(stop)
		wg.Wait()
		f.wantTally(map[idempotency.State]int{})
	}},
}

var listExpiryTests = []test{
	{"a record is listed until the instant it expires", func(t *testing.T, f *fixture) {
		f.lister()
		rec := f.claimMortal("a")
		f.wantListed(idempotency.Query{}, rec)
		f.setTime(rec.Expires)
		f.wantListed(idempotency.Query{})
		f.wantTally(map[idempotency.State]int{})
	}},

	{"a claim after expiry is listed once", func(t *testing.T, f *fixture) {
		f.lister()
		rec := f.claimExpired("a")
		next := f.startedAt("a", time.Second)
		next.Expires = rec.Expires.Add(time.Hour)
		f.claim(next, idempotency.Owner{})
		f.wantListed(idempotency.Query{}, next)
		f.wantTally(map[idempotency.State]int{idempotency.Started: 1})
	}},
}
