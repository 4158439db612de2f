package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// racers is how many goroutines race for a claim.
const racers = 64

var claimTests = []test{
	{"an ID that was never claimed is absent", func(t *testing.T, f *fixture) {
		f.wantAbsent(f.started("a").ID)
	}},

	{"a claim is stored", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.wantStored(rec)
		f.wantAbsent(f.started("b").ID)
	}},

	{"a second claim gets the record that stands", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.wantSame(f.tryClaim(second, idempotency.Owner{}), first)
		f.wantStored(first)
	}},

	{"a claim on a finished record gets its answer", func(t *testing.T, f *fixture) {
		first := f.started("a")
		f.claim(first, idempotency.Owner{})
		f.finish(done(first))
		f.wantSame(f.tryClaim(f.started("a"), idempotency.Owner{}), done(first))
	}},

	{"of many claims at once exactly one is made", func(t *testing.T, f *fixture) {
		for round := range 8 {
			f.race(t, func(int) (*idempotency.Record, idempotency.Owner) {
				return f.started(fmt.Sprint("a", round)), idempotency.Owner{}
			})
		}
	}},

	{"a claim over the standing token takes over", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.claim(second, first.Owner)
		f.wantStored(second)
	}},

	{"a claim takes over a record in any state", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.finish(unknown(first))
		f.claim(second, first.Owner)
		f.wantStored(second)
	}},

	{"a claim over another token does not take over", func(t *testing.T, f *fixture) {
		first := f.started("a")
		f.claim(first, idempotency.Owner{})
		f.wantSame(f.tryClaim(f.started("a"), process.NewOwner()), first)
		f.wantStored(first)
	}},

	{"a claim over an earlier token does not take over", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.claim(second, first.Owner)
		f.wantSame(f.tryClaim(f.started("a"), first.Owner), second)
		f.wantStored(second)
	}},

	{"a claim over a token is made where there is no record", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, process.NewOwner())
		f.wantStored(rec)
	}},

	{"of many take-overs at once exactly one is made", func(t *testing.T, f *fixture) {
		for round := range 8 {
			first := f.started(fmt.Sprint("a", round))
			f.claim(first, idempotency.Owner{})
			f.race(t, func(int) (*idempotency.Record, idempotency.Owner) {
				return f.started(first.Key), first.Owner
			})
		}
	}},

	{"the zero owner never matches", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		rec.Owner = idempotency.Owner{}
		f.claim(rec, idempotency.Owner{})
		f.wantSame(f.tryClaim(f.started("a"), idempotency.Owner{}), rec)
		f.wantNotOwner(f.Finish(f.ctx, done(rec)))
		f.wantNotOwner(f.Release(f.ctx, rec.ID, idempotency.Owner{}))
		f.tell(rec.ID, idempotency.Owner{}, f.epoch.Add(time.Second))
		f.wantStored(rec)
	}},
}

// race claims what next returns from many goroutines at once, all for one ID,
// and checks that one claim is made and the others get that one.
func (f *fixture) race(t *testing.T, next func(i int) (*idempotency.Record, idempotency.Owner)) {
	t.Helper()
	var (
		wg       sync.WaitGroup
		start    = make(chan struct{})
		claims   [racers]*idempotency.Record
		standing [racers]*idempotency.Record
		errs     [racers]error
	)
	for i := range racers {
		rec, over := next(i)
		claims[i] = rec
		wg.Go(func() {
			<-start
			standing[i], errs[i] = f.Claim(f.ctx, rec, over)
		})
	}
	close(start)
	wg.Wait()

	winner := -1
	for i := range racers {
		switch {
		case errs[i] != nil:
			t.Fatalf("claiming: %v", errs[i])
		case standing[i] == nil && winner >= 0:
			t.Fatalf("claims %d and %d were both made", winner, i)
		case standing[i] == nil:
			winner = i
		}
	}
	if winner < 0 {
		t.Fatal("no claim was made")
	}
	for i := range racers {
		if i != winner {
			f.wantSame(standing[i], claims[winner])
		}
	}
	f.wantStored(claims[winner])
}
