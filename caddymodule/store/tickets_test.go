package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func deferredCall(size int) *idempotency.Deferred {
	return &idempotency.Deferred{Since: time.UnixMilli(1000), Body: make([]byte, size)}
}

func numbers(t *testing.T, tickets *Tickets) (all []uint64) {
	t.Helper()
	list, err := tickets.After("", 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ticket := range list {
		n, ok := ParsePlaceNumber(ticket.Place)
		if !ok {
			t.Fatalf("%q is no place", ticket.Place)
		}
		all = append(all, n)
	}
	return all
}

// reserve reserves a number for a call of one byte.
func reserve(t *testing.T, tickets *Tickets) uint64 {
	t.Helper()
	n, err := tickets.Reserve(idempotency.ID{1}, deferredCall(1), idempotency.Bounds{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestATicketIsNotSeenBeforeThoseInFrontOfIt(t *testing.T) {
	tickets := NewTickets(7)
	a, b, c := reserve(t, tickets), reserve(t, tickets), reserve(t, tickets)
	tickets.Keep(b)
	if got := numbers(t, tickets); len(got) > 0 {
		t.Errorf("there are %v, and it is not known what comes before", got)
	}
	if d := tickets.Depth(); d.Calls != 1 || d.Bytes != 1 {
		t.Errorf("it is %+v deep, want one call", d)
	}
	tickets.Keep(a)
	if got, want := numbers(t, tickets), []uint64{8, 9}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
	tickets.Cancel(c)
	d := reserve(t, tickets)
	tickets.Keep(d)
	if got, want := numbers(t, tickets), []uint64{8, 9, 11}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}

func TestReservedTicketsCountForBounds(t *testing.T) {
	tickets := NewTickets(0)
	n := reserve(t, tickets)
	full := func(bounds idempotency.Bounds) bool {
		_, err := tickets.Reserve(idempotency.ID{2}, deferredCall(1), bounds)
		return errors.Is(err, idempotency.ErrBacklogFull)
	}
	if !full(idempotency.Bounds{Calls: 1}) || !full(idempotency.Bounds{Bytes: 1}) {
		t.Error("it takes another")
	}
	if _, ok := tickets.Take(NumberPlace(n)); ok {
		t.Error("what is only reserved was taken")
	}
	tickets.Cancel(n)
	if full(idempotency.Bounds{Calls: 1, Bytes: 1}) {
		t.Error("what was given up still counts")
	}
}

func TestATicketIsTakenOnce(t *testing.T) {
	tickets := NewTickets(0)
	n := reserve(t, tickets)
	tickets.Keep(n)
	taken, ok := tickets.Take(NumberPlace(n))
	if _, again := tickets.Take(NumberPlace(n)); !ok || again {
		t.Errorf("it was taken: %v, and then: %v", ok, again)
	}
	if err := tickets.Add(taken); err != nil {
		t.Fatal(err)
	}
	if got := numbers(t, tickets); !slices.Equal(got, []uint64{n}) {
		t.Errorf("it is back, and there are %v", got)
	}
}

func TestWhatIsNoPlaceIsRefused(t *testing.T) {
	tickets := NewTickets(0)
	for _, place := range []idempotency.Place{"1", "0/1-1", "00000000000000zz", "000000000000000001"} {
		if _, err := tickets.After(place, 1, nil); err == nil {
			t.Errorf("it reads on from %q", place)
		}
		if err := tickets.Add(idempotency.Ticket{Place: place}); err == nil {
			t.Errorf("it adds a ticket at %q", place)
		}
		if _, ok := tickets.Take(place); ok {
			t.Errorf("it takes the ticket at %q", place)
		}
	}
}
