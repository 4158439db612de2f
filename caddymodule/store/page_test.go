package store

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// at returns a record in a state, that many seconds after the first.
func at(second int, state idempotency.State) *idempotency.Record {
	return &idempotency.Record{
		ID:      idempotency.NewID("org", "", string(rune('a'+second%26))),
		State:   state,
		Started: time.Unix(int64(1_700_000_000+second), 0).UTC(),
	}
}

// list lets a page for q look at n records, the latest first, of which every
// tenth is unknown and the others are done.
func list(q idempotency.Query, n int) *Page {
	page := NewPage(q)
	for second := n - 1; second >= 0; second-- {
		state := idempotency.Done
		if second%10 == 0 {
			state = idempotency.Unknown
		}
		if rec := at(second, state); !page.Look(PositionOf(rec), rec) {
			break
		}
	}
	return page
}

func TestAPageEndsWhereItIsFullAndOthersFollow(t *testing.T) {
	got := list(idempotency.Query{Limit: 5}, 20).Listing()
	if len(got.Records) != 5 || got.Next != PositionOf(at(15, 0)) {
		t.Errorf("%d records, going on after %v", len(got.Records), got.Next)
	}
	if got := list(idempotency.Query{Limit: 20}, 20).Listing(); len(got.Records) != 20 || !got.Next.IsZero() {
		t.Errorf("of 20: %d records, going on after %v", len(got.Records), got.Next)
	}
	if got := list(idempotency.Query{}, 300).Listing(); len(got.Records) != idempotency.DefaultLimit {
		t.Errorf("without a limit: %d records", len(got.Records))
	}
}

func TestAPageHasWhatIsWantedAlone(t *testing.T) {
	got := list(idempotency.Query{States: []idempotency.State{idempotency.Unknown}}, 100).Listing()
	if len(got.Records) != 10 || !got.Next.IsZero() {
		t.Errorf("%d records, going on after %v", len(got.Records), got.Next)
	}
	page := list(idempotency.Query{Since: at(95, 0).Started}, 100)
	if got := page.Listing(); len(got.Records) != 5 || !got.Next.IsZero() {
		t.Errorf("since a time: %d records, going on after %v", len(got.Records), got.Next)
	}
	if page.Look(PositionOf(at(0, 0)), at(0, idempotency.Done)) {
		t.Error("it goes on after its end")
	}
}

func TestAPageLooksAtABoundedNumberOfRecords(t *testing.T) {
	page := list(idempotency.Query{Action: "none has it"}, MaxLooked+50)
	got := page.Listing()
	if len(got.Records) != 0 || got.Next != PositionOf(at(50, 0)) || page.Last() != got.Next {
		t.Errorf("%d records, going on after %v", len(got.Records), got.Next)
	}
}

func TestAPageWantsOneMoreThanItHasRoomFor(t *testing.T) {
	page := NewPage(idempotency.Query{Limit: 3})
	if page.Want() != 4 {
		t.Errorf("empty, it wants %d", page.Want())
	}
	page.Look(PositionOf(at(1, 0)), nil) // which has gone
	page.Look(PositionOf(at(0, 0)), at(0, idempotency.Done))
	if page.Want() != 3 || len(page.Listing().Records) != 1 {
		t.Errorf("with one, it wants %d", page.Want())
	}
}

func TestOnlyAQueryThatWantsNothingDoneCanPassOverThat(t *testing.T) {
	for _, c := range []struct {
		states []idempotency.State
		want   bool
	}{
		{nil, false},
		{[]idempotency.State{idempotency.Unknown, idempotency.Done}, false},
		{[]idempotency.State{idempotency.Unknown, idempotency.Open}, true},
	} {
		if got := ButDone(idempotency.Query{States: c.states}); got != c.want {
			t.Errorf("%v: %v", c.states, got)
		}
	}
}

func TestTheTimesOfARecordAreReadFromItsBeginning(t *testing.T) {
	for name, keys := range map[string]*Keyring{"plain": nil, "sealed": keyring(t, 1)} {
		data := keys.Encode(nil, sample())
		for n := range len(data) {
			rec, need, err := DecodeTimes(data[:n])
			switch {
			case err != nil:
				t.Fatalf("%s: %d bytes: %v", name, n, err)
			case rec == nil && need <= n:
				t.Fatalf("%s: %d bytes do not suffice, and %d are needed", name, n, need)
			case rec != nil && (PositionOf(rec) != PositionOf(sample()) || rec.Owner != sample().Owner):
				t.Fatalf("%s: %d bytes: %+v", name, n, rec)
			case rec == nil && n >= leastHead:
				t.Fatalf("%s: %d bytes do not suffice", name, n)
			}
		}
	}
	if _, _, err := DecodeTimes([]byte{99}); err == nil {
		t.Error("an unknown version is read")
	}
}
