package storetest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/memory"
	"genesys-sidecar/caddymodule/store/storetest"
)

// crew is three members of a fleet in a bubble, none of which has asked for parts.
func crew(t *testing.T, run func(t *testing.T, fleet *storetest.Fleet, a, b, c *storetest.Member)) {
	synctest.Test(t, func(t *testing.T) {
		fleet := storetest.NewFleet(memory.New(memory.Options{}), time.Second)
		run(t, fleet, fleet.Member(), fleet.Member(), fleet.Member())
	})
}

func partsOf(t *testing.T, m *storetest.Member) []idempotency.Part {
	t.Helper()
	parts, lease, err := m.Parts(ctx)
	if err != nil || lease != time.Second {
		t.Fatal(lease, err)
	}
	return parts
}

// wantParts fails the test unless these are so many parts, none of them twice.
func wantParts(t *testing.T, want int, each ...[]idempotency.Part) {
	t.Helper()
	all := slices.Concat(each...)
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); n != want || len(all) != want {
		t.Errorf("they have %q, want %d parts, each once", each, want)
	}
}

func TestPartsAreDividedAmongThoseWhoAsk(t *testing.T) {
	crew(t, func(t *testing.T, _ *storetest.Fleet, a, b, c *storetest.Member) {
		wantParts(t, 6, partsOf(t, a))
		wantParts(t, 0, partsOf(t, b)) // as long as a has not asked again
		had := partsOf(t, a)
		wantParts(t, 6, had, partsOf(t, b))
		for range 3 {
			partsOf(t, a)
			partsOf(t, b)
			partsOf(t, c)
		}
		inA, inB, inC := partsOf(t, a), partsOf(t, b), partsOf(t, c)
		wantParts(t, 6, inA, inB, inC)
		if len(inA) != 2 || len(inB) != 2 || len(inC) != 2 {
			t.Errorf("they have %q, %q and %q", inA, inB, inC)
		}
		for range 3 {
			time.Sleep(time.Second / 2)
			if got := partsOf(t, a); !slices.Equal(got, inA) {
				t.Errorf("it has %q, and then %q", inA, got)
			}
			partsOf(t, b)
			partsOf(t, c)
		}
	})
}

func TestThePartsOfADeadMemberGoToOthersAfterItsLease(t *testing.T) {
	crew(t, func(t *testing.T, _ *storetest.Fleet, a, b, _ *storetest.Member) {
		partsOf(t, a)
		partsOf(t, b)
		partsOf(t, a)
		partsOf(t, b)
		a.Crash()
		time.Sleep(time.Second - 1)
		wantParts(t, 3, partsOf(t, b))
		time.Sleep(1)
		wantParts(t, 6, partsOf(t, b))
		if _, _, err := a.Parts(ctx); !errors.Is(err, storetest.ErrGone) {
			t.Errorf("got the error %v, want %q", err, storetest.ErrGone)
		}
	})
}

func TestThePartsOfAStoppedMemberAreNotItsWhenItGoesOn(t *testing.T) {
	crew(t, func(t *testing.T, _ *storetest.Fleet, a, b, _ *storetest.Member) {
		wantParts(t, 6, partsOf(t, a))
		a.Pause()
		time.Sleep(time.Second)
		wantParts(t, 6, partsOf(t, b))
		a.Resume()
		wantParts(t, 0, partsOf(t, a))
		wantParts(t, 6, partsOf(t, b), partsOf(t, a))
	})
}

func TestThePartsOfAClosedMemberAreFreeAtOnce(t *testing.T) {
	crew(t, func(t *testing.T, _ *storetest.Fleet, a, b, _ *storetest.Member) {
		partsOf(t, a)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		wantParts(t, 6, partsOf(t, b))
	})
}

func TestAllMembersAreToldOfATicketAndSeeIt(t *testing.T) {
	crew(t, func(t *testing.T, fleet *storetest.Fleet, a, b, c *storetest.Member) {
		told := make(map[*storetest.Member][]idempotency.Part)
		for _, m := range []*storetest.Member{a, b, c} {
			m.OnEnqueue(func(part idempotency.Part) { told[m] = append(told[m], part) })
		}
		c.Pause()
		enqueue := func(i int) {
			rec := &idempotency.Record{
				ID: idempotency.NewID("", "", fmt.Sprint(i)), State: idempotency.Queued,
				Owner: idempotency.NewProcess().NewOwner(), Expires: time.Now().Add(time.Hour),
				Deferred: &idempotency.Deferred{Lane: idempotency.LaneID{byte(i)}, Since: time.Now()},
			}
			if standing, err := a.Enqueue(ctx, rec, idempotency.Owner{}, idempotency.Bounds{}); standing != nil || err != nil {
				t.Fatal(standing, err)
			}
		}
		for i := range 40 {
			enqueue(i)
		}
		if len(told[a]) != 40 || !slices.Equal(told[a], told[b]) || len(told[c]) != 0 {
			t.Errorf("they were told %d, %d and %d times", len(told[a]), len(told[b]), len(told[c]))
		}
		seen := 0
		for _, part := range partsOf(t, b) {
			tickets, err := b.Tickets(ctx, part, "", 100)
			if err != nil {
				t.Fatal(err)
			}
			if len(tickets) == 0 {
				t.Errorf("part %q has no tickets", part)
			}
			seen += len(tickets)
		}
		if seen != 40 {
			t.Errorf("there are %d tickets, want 40", seen)
		}
		fleet.Mute(true)
		enqueue(40)
		if len(told[b]) != 40 {
			t.Error("it was told all the same")
		}
	})
}

func TestACallThatHasEndedIsNotPutBackByItsOwnClaim(t *testing.T) {
	crew(t, func(t *testing.T, _ *storetest.Fleet, a, b, _ *storetest.Member) {
		rec := &idempotency.Record{
			ID: idempotency.NewID("", "", "x"), State: idempotency.Started, Owner: idempotency.NewProcess().NewOwner(),
			Expires: time.Now().Add(time.Hour), Deferred: &idempotency.Deferred{Since: time.Now()},
		}
		if _, err := a.Claim(ctx, rec, idempotency.Owner{}); err != nil {
			t.Fatal(err)
		}
		back, end := *rec, *rec
		back.State = idempotency.Queued
		end.State, end.Deferred = idempotency.Done, nil
		if err := errors.Join(a.Finish(ctx, &back), a.Finish(ctx, &back)); err != nil {
			t.Errorf("it cannot be put back: %v", err)
		}
		if err := a.Finish(ctx, rec); !errors.Is(err, idempotency.ErrNotOwner) {
			t.Errorf("what was put back is started again by its claim: %v", err)
		}
		if err := a.Finish(ctx, &end); err != nil {
			t.Fatal(err)
		}
		if err := b.Finish(ctx, &back); !errors.Is(err, idempotency.ErrNotOwner) {
			t.Errorf("got the error %v, want %q", err, idempotency.ErrNotOwner)
		}
	})
}
