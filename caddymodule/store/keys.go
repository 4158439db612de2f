package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// KeyList is where a store notes, beside its records, which keys those may need.
// Without it a store whose key is missing would open, and only tell with each
// call that it cannot be read.
type KeyList interface {
	// Listed returns the keys that were noted and not dropped.
	Listed(ctx context.Context) ([]KeyID, error)

	// Note notes a key, durably.
	Note(ctx context.Context, id KeyID) error

	// Drop takes keys that are not needed any more off the list, or leaves there
	// what another process may be about to need.
	Drop(ctx context.Context, ids []KeyID) error

	// Uses counts the records that live and need one of ids.
	Uses(ctx context.Context, ids []KeyID) (KeyUses, error)

	// Barrier returns once what was being written when it was called has been.
	Barrier()
}

// KeyUses are the records that need a key.
type KeyUses map[KeyID]KeyUse

// KeyUse is how many records need a key, and when the last of them is gone.
type KeyUse struct {
	Records int
	Until   time.Time
}

// Add counts a record.
func (u KeyUses) Add(id KeyID, until time.Time) {
	use := u[id]
	use.Records++
	if until.After(use.Until) {
		use.Until = until
	}
	u[id] = use
}

// KeysMissingError is the error for a store with records that need a key which
// its keyring does not have.
type KeysMissingError struct {
	Uses KeyUses

	// Err is why it is not known which records need the keys. nil: it is.
	Err error
}

// Unwrap returns Err.
func (e *KeysMissingError) Unwrap() error { return e.Err }

func (e *KeysMissingError) Error() string {
	var parts []string
	for _, id := range slices.SortedFunc(maps.Keys(e.Uses), func(a, b KeyID) int { return slices.Compare(a[:], b[:]) }) {
		use := e.Uses[id]
		records := fmt.Sprintf("%d records need it, the last until %s", use.Records, use.Until.UTC().Format(time.RFC3339))
		switch {
		case e.Err != nil:
			records = fmt.Sprintf("whether records need it still cannot be found out: %v", e.Err)
		case use.Records == 1:
			records = "1 record needs it, until " + use.Until.UTC().Format(time.RFC3339)
		}
		parts = append(parts, fmt.Sprintf("it is encrypted with key %s, which encryption_key does not have (%s)", id, records))
	}
	return strings.Join(parts, ", and ") + "; add that key to encryption_key, after the first one, until then; " +
		"without it, only an empty store can be used, which forgets every answer"
}

// Keys are the keyring of an open store. The zero value is none. They are safe
// for concurrent use.
type Keys struct {
	changing sync.Mutex
	ring     atomic.Pointer[Keyring]
}

// Ring returns the keyring.
func (k *Keys) Ring() *Keyring { return k.ring.Load() }

// Set makes ring the keyring, unseen.
func (k *Keys) Set(ring *Keyring) { k.ring.Store(ring) }

// Check checks that a store can be used with its keyring, before it is: where
// records need keys that it does not have, the error is a KeysMissingError.
func (k *Keys) Check(ctx context.Context, list KeyList) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	ring := k.Ring()
	unused, err := unusedKeys(ctx, ring, list)
	if err != nil {
		return err
	}
	if err := noteFirst(ctx, ring, list); err != nil {
		return err
	}
	return drop(ctx, unused, list)
}

// Change makes next the keyring of a store that is in use. Where records need
// keys that next does not have, the error is a KeysMissingError, and the keyring
// stays as it is.
func (k *Keys) Change(ctx context.Context, next *Keyring, list KeyList) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	former := k.Ring()
	if former.Equal(next) {
		return nil
	}
	if _, err := unusedKeys(ctx, next, list); err != nil {
		return err
	}
	if err := noteFirst(ctx, next, list); err != nil {
		return err
	}
	// From here on nobody encrypts with a key that goes, so that another look
	// tells for good whether it is needed.
	both := next.With(former)
	k.ring.Store(both)
	list.Barrier()
	unused, err := unusedKeys(ctx, next, list)
	if err != nil {
		k.ring.Store(former.With(next)) // some may need the new first key by now
		return err
	}
	k.ring.Store(next)
	return drop(ctx, unused, list)
}

// unusedKeys returns which keys are listed that ring does not have, and fails
// where one of them is needed.
func unusedKeys(ctx context.Context, ring *Keyring, list KeyList) ([]KeyID, error) {
	listed, err := list.Listed(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading which keys are in use: %w", err)
	}
	missing := slices.DeleteFunc(listed, ring.Has)
	if len(missing) == 0 {
		return nil, nil
	}
	uses, err := list.Uses(ctx, missing)
	switch {
	case err != nil:
		uses = make(KeyUses)
		for _, id := range missing {
			uses[id] = KeyUse{}
		}
		return nil, &KeysMissingError{uses, err}
	case len(uses) > 0:
		return nil, &KeysMissingError{uses, nil}
	}
	return missing, nil
}

func noteFirst(ctx context.Context, ring *Keyring, list KeyList) error {
	id, ok := ring.First()
	if !ok {
		return nil
	}
	if err := list.Note(ctx, id); err != nil {
		return fmt.Errorf("noting which key is in use: %w", err)
	}
	return nil
}

func drop(ctx context.Context, unused []KeyID, list KeyList) error {
	if len(unused) == 0 {
		return nil
	}
	if err := list.Drop(ctx, unused); err != nil {
		return fmt.Errorf("noting which keys are not in use any more: %w", err)
	}
	return nil
}
