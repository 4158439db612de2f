package store

import (
	"encoding/binary"
	"math"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// MaxLooked is how many records a listing looks at, at most, for one page.
const MaxLooked = 1000

// Page gathers a page of a listing. It is used by one goroutine.
type Page struct {
	Query   idempotency.Query
	listing idempotency.Listing
	looked  int
	last    idempotency.Position
	ended   bool
}

// NewPage returns an empty page for q.
func NewPage(q idempotency.Query) *Page {
	if q.Limit <= 0 {
		q.Limit = idempotency.DefaultLimit
	}
	return &Page{Query: q, last: q.After}
}

// ButDone tells whether q wants nothing that is Done.
func ButDone(q idempotency.Query) bool {
	for _, s := range q.States {
		if s == idempotency.Done {
			return false
		}
	}
	return len(q.States) > 0
}

// Look notes that next stands at at, the next place in the listing's order; nil:
// there is nothing any more. It tells whether the page has room for what follows.
func (p *Page) Look(at idempotency.Position, next *idempotency.Record) (more bool) {
	if p.ended || p.passed(at) {
		return false
	}
	if len(p.listing.Records) >= p.Query.Limit || p.looked >= MaxLooked {
		p.listing.Next, p.ended = p.last, true
		return false
	}
	p.looked++
	p.last = at
	if next != nil && p.Query.Matches(next) {
		p.listing.Records = append(p.listing.Records, next)
	}
	return true
}

// passed ends the page where at, and so all that follows, is too old.
func (p *Page) passed(at idempotency.Position) bool {
	p.ended = !p.Query.Since.IsZero() && at.Started.Before(p.Query.Since)
	return p.ended
}

// Want returns how many records it is worth to look at in one go: enough to fill
// the page if all match, and to learn whether others follow.
func (p *Page) Want() int {
	return min(p.Query.Limit-len(p.listing.Records), MaxLooked-p.looked) + 1
}

// Last returns where the last record that was looked at stands.
func (p *Page) Last() idempotency.Position { return p.last }

// Listing returns the page.
func (p *Page) Listing() idempotency.Listing { return p.listing }

// PositionOf returns where rec stands in a listing, by the wall clock alone: times
// are kept without the other.
func PositionOf(rec *idempotency.Record) idempotency.Position {
	return idempotency.Position{Started: rec.Started.Round(0), ID: rec.ID}
}

// SortableSize is how many bytes AppendSortable appends.
const SortableSize = 8

// AppendSortable appends eight bytes to dst that sort as t does. Times that no
// int64 of nanoseconds holds sort first or last; that is where they belong.
func AppendSortable(dst []byte, t time.Time) []byte {
	n := t.UnixNano()
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		n = math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		n = math.MaxInt64
	}
	return binary.BigEndian.AppendUint64(dst, uint64(n)^1<<63) // negative ones first
}

// PlaceSize is how many bytes AppendPlace appends.
const PlaceSize = SortableSize + len(idempotency.ID{})

// AppendPlace appends at to dst, so that places sort as a listing does, backwards.
func AppendPlace(dst []byte, at idempotency.Position) []byte {
	return append(AppendSortable(dst, at.Started), at.ID[:]...)
}

// ParsePlace returns the position that place was made of.
func ParsePlace(place []byte) (at idempotency.Position, ok bool) {
	if len(place) != PlaceSize {
		return at, false
	}
	n := int64(binary.BigEndian.Uint64(place) ^ 1<<63)
	return idempotency.Position{Started: time.Unix(0, n).UTC(), ID: idempotency.ID(place[8:])}, true
}
