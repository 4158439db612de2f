package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// memoList is a KeyList in memory, with the keys that its records need.
type memoList struct {
	listed   []KeyID
	needed   KeyUses
	uses     error  // of Uses
	barrier  func() // what is written while keys change
	noteErr  error
	barriers int
}

func (l *memoList) Listed(context.Context) ([]KeyID, error) { return slices.Clone(l.listed), nil }

func (l *memoList) Note(_ context.Context, id KeyID) error {
	if l.noteErr == nil && !slices.Contains(l.listed, id) {
		l.listed = append(l.listed, id)
	}
	return l.noteErr
}

func (l *memoList) Drop(_ context.Context, ids []KeyID) error {
	l.listed = slices.DeleteFunc(l.listed, func(id KeyID) bool { return slices.Contains(ids, id) })
	return nil
}

func (l *memoList) Uses(_ context.Context, ids []KeyID) (KeyUses, error) {
	uses := make(KeyUses)
	for id, use := range l.needed {
		if slices.Contains(ids, id) {
			uses[id] = use
		}
	}
	return uses, l.uses
}

func (l *memoList) Barrier() {
	l.barriers++
	if l.barrier != nil {
		l.barrier()
	}
}

func first(t *testing.T, ring *Keyring) KeyID {
	t.Helper()
	id, ok := ring.First()
	if !ok {
		t.Fatal("it has no key")
	}
	return id
}

func TestAStoreIsOpenedWithTheKeysThatItsRecordsNeed(t *testing.T) {
	old, both, wrong := keyring(t, 1), keyring(t, 2, 1), keyring(t, 3)
	until := time.Date(2026, 11, 25, 1, 2, 3, 0, time.UTC)
	list := &memoList{needed: make(KeyUses)}
	list.needed.Add(first(t, old), until.Add(-time.Hour))
	list.needed.Add(first(t, old), until)
	check := func(ring *Keyring) error {
		var keys Keys
		keys.Set(ring)
		return keys.Check(t.Context(), list)
	}
	if err := check(old); err != nil || !slices.Equal(list.listed, []KeyID{first(t, old)}) {
		t.Fatalf("with its key: %v, listed %v", err, list.listed)
	}
	for name, ring := range map[string]*Keyring{"another key": wrong, "no key": nil} {
		var missing *KeysMissingError
		if err := check(ring); !errors.As(err, &missing) || missing.Uses[first(t, old)].Records != 2 ||
			!strings.Contains(err.Error(), "2 records need it, the last until 2026-11-25T01:02:03Z") {
			t.Errorf("with %s: %v", name, err)
		}
	}
	if err := check(both); err != nil {
		t.Errorf("with both: %v", err)
	}
	delete(list.needed, first(t, old))
	if err := check(keyring(t, 2)); err != nil || slices.Contains(list.listed, first(t, old)) {
		t.Errorf("once nobody needs it: %v, listed %v", err, list.listed)
	}
}

func TestWhetherAKeyIsNeededHasToBeKnown(t *testing.T) {
	list := &memoList{listed: []KeyID{first(t, keyring(t, 1))}, uses: errors.New("the disk is away")}
	var keys Keys
	keys.Set(keyring(t, 2))
	err := keys.Check(t.Context(), list)
	if !errors.Is(err, list.uses) || !strings.Contains(err.Error(), "cannot be found out") {
		t.Errorf("got %v", err)
	}
}

func TestKeysChangeWhileAStoreIsInUse(t *testing.T) {
	one, two := keyring(t, 1), keyring(t, 2)
	list := &memoList{needed: make(KeyUses)}
	var keys Keys
	keys.Set(one)
	if err := keys.Check(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if err := keys.Change(t.Context(), keyring(t, 1), list); err != nil || list.barriers != 0 {
		t.Errorf("to the same: %v, %d barriers", err, list.barriers)
	}

	// What is written until the change counts has the old key.
	list.barrier = func() {
		if ring := keys.Ring(); first(t, ring) != first(t, two) || !ring.Has(first(t, one)) {
			t.Errorf("while it changes, the ring is %v", ring)
		}
		list.needed.Add(first(t, one), time.Now())
	}
	var missing *KeysMissingError
	if err := keys.Change(t.Context(), two, list); !errors.As(err, &missing) {
		t.Errorf("to one without the key that is needed: %v", err)
	}
	if ring := keys.Ring(); first(t, ring) != first(t, one) || !ring.Has(first(t, two)) {
		t.Errorf("after a change that failed, the ring is %v", ring)
	}

	list.barrier = nil
	clear(list.needed)
	if err := keys.Change(t.Context(), two, list); err != nil || !keys.Ring().Equal(two) {
		t.Errorf("%v; the ring is %v", err, keys.Ring())
	}
	if slices.Contains(list.listed, first(t, one)) {
		t.Errorf("listed are %v", list.listed)
	}
}

func TestAKeyIsNotUsedThatCouldNotBeNoted(t *testing.T) {
	list := &memoList{noteErr: errors.New("the disk is full")}
	var keys Keys
	keys.Set(keyring(t, 1))
	if err := keys.Check(t.Context(), list); !errors.Is(err, list.noteErr) {
		t.Errorf("opening: %v", err)
	}
	if err := keys.Change(t.Context(), keyring(t, 2), list); !errors.Is(err, list.noteErr) || !keys.Ring().Equal(keyring(t, 1)) {
		t.Errorf("changing: %v; the ring is %v", err, keys.Ring())
	}
}

func TestAKeyIDIsReadAsItIsWritten(t *testing.T) {
	id := first(t, keyring(t, 1))
	if got, err := ParseKeyID(id.String()); got != id || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "xy", id.String() + "00"} {
		if _, err := ParseKeyID(text); err == nil {
			t.Errorf("%q is taken for one", text)
		}
	}
}
