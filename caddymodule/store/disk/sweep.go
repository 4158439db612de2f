package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// sweepBatch is how many entries of the expiry index are read at a time.
const sweepBatch = 256

// run removes expired records every interval, and opens the database anew after
// a failure, until Close.
func (s *Store) run(interval time.Duration) {
	var tick <-chan time.Time
	if interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	looks := time.NewTicker(clockInterval)
	defer looks.Stop()
	notes := time.NewTicker(noteInterval)
	defer notes.Stop()
	s.learn()
	for {
		select {
		case <-s.stop:
			return
		case <-notes.C:
			s.keepTime()
		case <-looks.C:
			if s.clock != nil && s.clock.look() {
				s.keepTime()
			}
		case <-s.guard.failed:
			if !s.recover() {
				return
			}
			s.learn()
		case <-tick:
			n, err := s.sweep()
			if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrFailed) {
				s.logger.Error("sweeping store", "error", err)
			}
			s.logger.Debug("swept store", "removed", n)
			if s.filterIsStale() {
				s.learn()
			}
		}
	}
}

// sweep removes what has expired by now and tells how many records that were.
// It goes through the expiry index, and holds no more than one record's lock at
// a time. What it cannot read it leaves where it is.
func (s *Store) sweep() (removed int, err error) {
	var unreadable error // the first of them
	start, end := []byte{keyspaceExpiry}, after(expiryPrefix(s.Now()))
	for {
		keys, err := s.expired(start, end)
		if err != nil {
			return removed, err
		}
		for _, key := range keys {
			select {
			case <-s.stop:
				return removed, nil
			default:
			}
			gone, err := s.removeExpired(key)
			if gone {
				removed++
			}
			if err != nil && unreadable == nil {
				unreadable = err
			}
		}
		if len(keys) < sweepBatch {
			return removed, unreadable
		}
		start = append(keys[len(keys)-1], 0)
	}
}

// expired returns the first keys of the expiry index from start to end.
func (s *Store) expired(start, end []byte) (keys [][]byte, err error) {
	if err := s.begin(context.Background()); err != nil {
		return nil, err
	}
	defer s.end()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return nil, s.readError(err)
	}
	for ok := it.First(); ok && len(keys) < sweepBatch; ok = it.Next() {
		keys = append(keys, append([]byte(nil), it.Key()...))
	}
	return keys, s.readError(it.Close())
}

// removeExpired removes the record that key, of the expiry index, leads to, if
// that has expired, and tells whether it did. A crash may bring back what it
// removed; it will have expired then as well.
func (s *Store) removeExpired(key []byte) (gone bool, err error) {
	id, ok := keyID(key)
	if !ok {
		return false, fmt.Errorf("%w: it has a key %x", ErrDamaged, key)
	}
	r, err := s.hold(context.Background(), id)
	if err != nil {
		return false, err
	}
	defer r.release()
	rec, err := r.stored()
	if err != nil {
		return false, err
	}
	b := s.db.NewBatch()
	err = b.Delete(key, nil)
	settled := false
	switch {
	case rec == nil:
		// It leads nowhere, and must not be met forever.
	case s.isGone(rec):
		gone = true
		var settleErr error
		settled, settleErr = r.settle(b, rec)
		err = errors.Join(err, settleErr, place(b, rec, nil), s.leave(b, rec, nil), b.Delete(recordKey(id), nil))
	default:
		// It was finished later than its claim foresaw, or claimed again, or it
		// is kept beyond its time.
		err = errors.Join(err, b.Set(expiryKey(s.expiry(rec), id), nil, nil))
	}
	if err = s.note(b, err); err != nil {
		return false, err
	}
	if settled {
		s.unsettled.count(rec.Adoption).Add(-1)
	}
	if gone {
		s.filter.removed()
		s.left(rec, nil)
		r.end()
	}
	return gone, nil
}
