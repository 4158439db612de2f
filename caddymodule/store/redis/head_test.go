package redis

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func sample() *idempotency.Record {
	p := idempotency.NewProcess()
	return &idempotency.Record{
		ID:        idempotency.NewID("org", "scope", "key"),
		State:     idempotency.Started,
		Owner:     p.NewOwner(),
		Attendant: p.NewOwner(),
		Adoption:  idempotency.NewAdoptionID("org", "scope", idempotency.Fingerprint{}),
		Key:       "key",
		Label:     idempotency.Label{Action: "action"},
		Journal:   idempotency.Journal{Skipped: 1, Attempts: []idempotency.Attempt{{Started: time.Unix(1, 2).UTC(), Status: 500}}},
		Started:   time.Unix(1, 2).UTC(),
		Told:      time.Unix(3, 4).UTC(),
		Expires:   time.Unix(5, 6).UTC(),
	}
}

func TestARecordComesBackAsItWentIn(t *testing.T) {
	rec := sample()
	got, err := decode(nil, encode(nil, nil, rec))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Record, rec) || !got.unsettled {
		t.Errorf("got %+v, want %+v", got, rec)
	}
	rec.Adoption, rec.Told = idempotency.AdoptionID{}, time.Time{}
	if got, err := decode(nil, encode(nil, nil, rec)); err != nil || got.unsettled || !got.Told.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The scripts have these places as numbers.
func TestTheHeadIsWhereTheScriptsLookForIt(t *testing.T) {
	rec := sample()
	value := string(encode(nil, nil, rec))
	for _, part := range []struct {
		name        string
		first, last int // counting from 1, as Lua does
		want        string
	}{
		{"layout version", 1, 1, "\x01"},
		{"unsettled", 2, 2, "1"},
		{"watched", 3, 3, "0"},
		{"attendant", 4, 19, string(rec.Attendant[:])},
		{"told", 20, 27, string(encodeTime(nil, rec.Told))},
		{"owner", 28, 43, string(rec.Owner[:])},
		{"adoption", 44, 75, string(rec.Adoption[:])},
		{"state", 77, 77, string(rune(rec.State))},
	} {
		if got := value[part.first-1 : part.last]; got != part.want {
			t.Errorf("%s is %q, want %q", part.name, got, part.want)
		}
	}
}

func TestAValueThatIsNoRecordIsRefused(t *testing.T) {
	value := string(encode(nil, nil, sample()))
	for name, damaged := range map[string]string{
		"empty":             "",
		"half a head":       value[:headSize/2],
		"no record":         value[:headSize],
		"half a record":     value[:headSize+20],
		"a flipped bit":     value[:headSize+20] + "!" + value[headSize+21:],
		"of a later layout": "\x02" + value[1:],
	} {
		if _, err := decode(nil, []byte(damaged)); err == nil {
			t.Errorf("%s was taken for a record", name)
		} else if name == "of a later layout" && !strings.Contains(err.Error(), "layout 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARecordLivesForAMillisecondAtLeast(t *testing.T) {
	now := time.Now()
	s := &Store{options: Options{Now: func() time.Time { return now }}}
	for left, want := range map[time.Duration]int64{
		-time.Hour: 1, 0: 1, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3_600_000,
	} {
		if got := s.ttl(&idempotency.Record{Expires: now.Add(left)}); got != want {
			t.Errorf("with %v left: %d ms, want %d", left, got, want)
		}
	}
}
