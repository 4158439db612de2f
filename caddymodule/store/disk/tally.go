package disk

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// tally counts unsettled records by the first bits of their adoption IDs, so
// that a call without a key, which most likely is the only one of its kind,
// need not search the database to learn that. A count may be too high, and
// never is too low: it is raised before the database has the record as
// unsettled, and lowered after it no longer does.
type tally [1 << 14]atomic.Int32

func (t *tally) count(a idempotency.AdoptionID) *atomic.Int32 {
	return &t[(int(a[0])<<8|int(a[1]))%len(t)]
}

// loadTally counts what the database has.
func (d *database) loadTally() error {
	start := []byte{keyspaceUnsettled}
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: after(start)})
	if err != nil {
		return d.readError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if a, ok := keyAdoption(it.Key()); ok {
			d.unsettled.count(a).Add(1)
		}
	}
	return d.readError(it.Close())
}
