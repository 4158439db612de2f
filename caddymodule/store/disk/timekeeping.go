package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// clockKey is where the clock's last note is kept. Versions that do not know it
// take no notice of it.
var clockKey = []byte{keyspaceMeta, 'c', 'l', 'o', 'c', 'k'}

// noteInterval is how often the store notes where its clock is.
const noteInterval = time.Minute

var _ idempotency.Clock = (*Store)(nil)

// Now implements idempotency.Clock.
func (s *Store) Now() time.Time {
	if s.options.Now != nil {
		return s.options.Now()
	}
	return s.clock.Now()
}

// Elapsed implements idempotency.Clock.
func (s *Store) Elapsed(since time.Time) time.Duration {
	if s.options.Now != nil {
		return s.options.Now().Sub(since)
	}
	return s.clock.elapsed(since)
}

// isGone tells whether rec counts as gone.
func (s *Store) isGone(rec *idempotency.Record) bool {
	if s.options.Now != nil {
		return rec.Expired(s.options.Now())
	}
	return s.clock.expired(rec)
}

// expiry returns when rec counts as gone.
func (s *Store) expiry(rec *idempotency.Record) time.Time {
	if s.options.Now != nil {
		return rec.Expires
	}
	return s.clock.expiry(rec)
}

// startClock starts the store's clock from where the database says it was, and
// writes down where it is.
func (s *Store) startClock() error {
	note, err := s.lastNote()
	if err != nil {
		return err
	}
	s.clock = startClock(note, s.options.machine, s.logger)
	value, now := s.clockNote()
	s.noted = now
	return s.db.Set(clockKey, value, pebble.Sync)
}

// checkAge checks that d, which stands where the store's database has failed, is
// not one from before: of a volume that is not mounted any more, or a backup.
func (s *Store) checkAge(d database) error {
	note, err := d.lastNote()
	if err == nil && note.Time.Before(s.noted) {
		err = fmt.Errorf("%w: it is not the one that failed, but one from before (of %s)", ErrDamaged, note.Time.Format(time.RFC3339))
	}
	return err
}

// lastNote returns the last note of the clock; zero: there is none.
func (d *database) lastNote() (note clockNote, err error) {
	value, err := d.get(clockKey)
	if err != nil || value == nil {
		return note, err
	}
	if err := json.Unmarshal(value, &note); err != nil {
		return note, fmt.Errorf("%w: what it says of its clock: %w", ErrDamaged, err)
	}
	return note, nil
}

func (s *Store) clockNote() (value []byte, now time.Time) {
	note := s.clock.note()
	value, err := json.Marshal(note)
	if err != nil {
		panic(err) // no year is so far
	}
	return value, note.Time
}

// keepTime notes where the clock is, for when the store is opened after the
// machine has been restarted.
func (s *Store) keepTime() {
	if s.options.Now != nil || s.begin(context.Background()) != nil {
		return
	}
	defer s.end()
	b := s.db.NewBatch()
	value, _ := s.clockNote()
	if err := s.note(b, b.Set(clockKey, value, nil)); err != nil {
		s.logger.Debug("noting the time", slog.Any("error", err))
	}
}
