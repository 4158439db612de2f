package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
	"genesys-sidecar/caddymodule/store/storetest"
)

// ring returns a keyring of keys that differ where numbers do.
func ring(t testing.TB, numbers ...byte) *store.Keyring {
	t.Helper()
	var texts []string
	for _, n := range numbers {
		texts = append(texts, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, store.KeySize)))
	}
	r, err := store.ParseKeyring(texts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConformanceWithEncryption(t *testing.T) {
	dirs := make(map[*testing.T]string)
	open := func(t *testing.T, now func() time.Time) idempotency.Store {
		if dirs[t] == "" {
			dirs[t] = t.TempDir()
		}
		s, err := Open(dirs[t], Options{Now: now, Keyring: ring(t, 1, 2)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	storetest.Run(t, storetest.Harness{Open: open, Reopen: open})
}

const canary = "canary-c4f1"

// canaries returns a finished record that has a canary wherever one can be.
func canaries(rec *idempotency.Record) *idempotency.Record {
	d := *rec
	d.State, d.Finished = idempotency.Done, time.Now()
	d.Key, d.UpstreamKey = canary+"-key", canary+"-upstream"
	d.Label.Action = canary + "-action"
	d.Journal.Attempts = []idempotency.Attempt{{CorrelationID: canary + "-correlation", Error: canary + "-error"}}
	d.Journal.Words = []idempotency.Word{{Note: canary + "-note"}}
	d.Answer = &idempotency.Answer{
		Status: 200,
		Header: idempotency.NewHeader(http.Header{"X-Told": {canary + "-header"}}),
		Body:   []byte(canary + "-body"),
	}
	return &d
}

// holdsCanary tells whether a file in dir has a canary in it.
func holdsCanary(t *testing.T, dir string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || bytes.Contains(data, []byte(canary))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestNothingOfARecordIsReadableInTheDirectory(t *testing.T) {
	for name, test := range map[string]struct {
		keys *store.Keyring
		want bool
	}{"encrypted": {ring(t, 1), false}, "not encrypted": {nil, true}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{Keyring: test.keys})
			for _, name := range []string{"a", "b"} {
				rec := canaries(claim(name))
				started := *rec
				started.State, started.Answer, started.Finished = idempotency.Started, nil, time.Time{}
				mustClaim(t, s, &started)
				if err := s.Finish(ctx, rec); err != nil {
					t.Fatal(err)
				}
				if err := s.Tell(ctx, rec.ID, rec.Owner, time.Now()); err != nil {
					t.Fatal(err)
				}
				if found := holdsCanary(t, dir); found != test.want {
					t.Errorf("in the log: found is %v", found)
				}
				if err := s.db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			// Tables are compressed, so that what is in the clear need not be found in
			// them as it is.
			if found := holdsCanary(t, dir); found && !test.want {
				t.Error("it is in a table")
			}
		})
	}
}

func TestAWrongKeyIsAnErrorThatSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Keyring: ring(t, 1)})
	names := fill(t, s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string]*store.Keyring{"another key": ring(t, 2), "no key": nil} {
		s, err := Open(dir, Options{Keyring: keys})
		if err == nil {
			t.Fatal(name, errors.Join(errors.New("it was opened"), s.Close()))
		}
		var missing *store.KeysMissingError
		if !errors.As(err, &missing) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"opening store " + dir + ": it is encrypted with key " + ring(t, 1).String(), "3 records", "until 20", "add that key to encryption_key"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, want it to tell %q", name, err, want)
			}
		}
	}
	s = mustOpen(t, dir, Options{Keyring: ring(t, 2, 1)})
	if n, err := missing(s, names); n > 0 || err != nil {
		t.Errorf("with the key as the second one, %d records are gone, %v", n, err)
	}
}

func TestAPlainStoreTakesAKey(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	plain := fill(t, s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, Options{Keyring: ring(t, 1)})
	if n, err := missing(s, plain); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
	rec := claim("sealed")
	mustClaim(t, s, rec)
	if key := keyOf(t, s, rec.ID); key != ring(t, 1).String() {
		t.Errorf("the new one needs key %q", key)
	}
	if key := keyOf(t, s, claim(plain[0]).ID); key != "" {
		t.Errorf("the old one needs key %q", key)
	}
}

// keyOf returns the ID of the key that a record needs, or "".
func keyOf(t *testing.T, s *Store, id idempotency.ID) string {
	t.Helper()
	value, err := s.get(recordKey(id))
	if err != nil || value == nil {
		t.Fatalf("got %q, %v", value, err)
	}
	clear, key, _, err := store.DecodeClear(value)
	if err != nil {
		t.Fatal(err)
	}
	if clear == nil {
		return ""
	}
	return key.String()
}

func TestAKeyThatNoLivingRecordNeedsCanGo(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	clock := func() time.Time { return now }
	s := mustOpen(t, dir, Options{Now: clock, Keyring: ring(t, 1)})
	names := fill(t, s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	s = mustOpen(t, dir, Options{Now: clock})
	if listed, err := (keyList{s}).Listed(ctx); len(listed) > 0 || err != nil {
		t.Errorf("%v are listed, %v", listed, err)
	}

	// What has expired can still be claimed anew and swept, though nobody can read it.
	again := claim(names[0])
	again.Expires = now.Add(time.Hour)
	mustClaim(t, s, again)
	if n, err := s.sweep(); n != 2 || err != nil {
		t.Errorf("%d records were swept, %v", n, err)
	}
}

func TestKeysRotateInAnOpenStore(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Keyring: ring(t, 1)})
	first := fill(t, s, 1)
	if err := s.SetKeyring(ring(t, 2)); err == nil || !strings.Contains(err.Error(), ring(t, 1).String()) {
		t.Fatalf("a key in use was taken away: %v", err)
	}
	if n, err := missing(s, first); n > 0 || err != nil {
		t.Errorf("after a change that was refused %d records are gone, %v", n, err)
	}

	if err := s.SetKeyring(ring(t, 2, 1)); err != nil {
		t.Fatal(err)
	}
	rec := claim("second")
	mustClaim(t, s, rec)
	if key := keyOf(t, s, rec.ID); key != ring(t, 2).String() {
		t.Errorf("the new one needs key %q", key)
	}
	if n, err := missing(s, first); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
	old := claim(first[0])
	got, err := s.Get(ctx, old.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(ctx, got.ID, got.Owner); err != nil {
		t.Fatal(err)
	}
	if err := s.SetKeyring(ring(t, 2)); err != nil {
		t.Fatalf("a key that is not needed cannot go: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Keyring: ring(t, 3)}); err == nil || !strings.Contains(err.Error(), "key "+ring(t, 2).String()) {
		t.Errorf("opening it with a key that it never had: %v", err)
	}
	s = mustOpen(t, dir, Options{Keyring: ring(t, 2)})
	if got, err := s.Get(ctx, rec.ID); got == nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// lateList is a keyList that others write to until the barrier.
type lateList struct {
	keyList
	late func()
}

func (l lateList) Barrier() {
	l.late()
	l.keyList.Barrier()
}

func TestWhatIsWrittenWhileKeysChangeIsNotLost(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{Keyring: ring(t, 1)})
	rec := claim("late")
	err := s.keys.Change(ctx, ring(t, 2), lateList{keyList{s}, func() {
		if first, _ := s.keys.Ring().First(); first.String() != ring(t, 2).String() {
			t.Errorf("before the barrier key %s encrypts", first)
		}
		// What began before the change ends only now.
		if err := s.db.Set(recordKey(rec.ID), ring(t, 1).Encode(nil, rec), pebble.Sync); err != nil {
			t.Error(err)
		}
	}})
	var missing *store.KeysMissingError
	if !errors.As(err, &missing) {
		t.Errorf("the change was made: %v", err)
	}
	if got, err := s.Get(ctx, rec.ID); got == nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestNoRecordIsLostToAChangeOfKeys changes keys to and fro while others write.
func TestNoRecordIsLostToAChangeOfKeys(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Keyring: ring(t, 1)})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				rec := claim(rand.Text())
				if standing, err := s.Claim(ctx, rec, idempotency.Owner{}); standing != nil || err != nil {
					t.Errorf("claiming: %v, %v", standing, err)
					return
				}
				if got, err := s.Get(ctx, rec.ID); got == nil || err != nil {
					t.Errorf("getting: %v, %v", got, err)
					return
				}
				if err := s.Release(ctx, rec.ID, rec.Owner); err != nil {
					t.Errorf("releasing: %v", err)
					return
				}
			}
		})
	}
	changed := 0
	for i := range 200 {
		if err := s.SetKeyring(ring(t, byte(i%2+1))); err == nil {
			changed++
			continue
		}
		if err := s.SetKeyring(ring(t, byte(i%2+1), byte((i+1)%2+1))); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := s.SetKeyring(ring(t, 3)); err != nil {
		t.Errorf("with no record left: %v", err)
	}
	t.Logf("%d of 200 changes took a key away at once", changed)
}

func TestARecordThatWasMovedIsNoOthers(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{Keyring: ring(t, 1)})
	names := fill(t, s, 2)
	a, b := claim(names[0]), claim(names[1])
	value, err := s.get(recordKey(a.ID))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Set(recordKey(b.ID), value, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if rec, err := s.Get(ctx, b.ID); rec != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("got %+v, %v", rec, err)
	}
	if rec, err := s.Claim(ctx, b, idempotency.Owner{}); rec != nil || !errors.Is(err, ErrDamaged) || !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("claimed: %+v, %v", rec, err)
	}
}

func TestARecordThatCannotBeDecryptedIsNeverAbsent(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{Keyring: ring(t, 1)})
	rec := answered(claim("a"))
	rec.Adoption = idempotency.AdoptionID{7}
	started := *rec
	started.State, started.Answer = idempotency.Started, nil
	mustClaim(t, s, &started)
	if err := s.Finish(ctx, rec); err != nil {
		t.Fatal(err)
	}
	s.keys.Set(ring(t, 2)) // as if somebody had put a foreign record there
	_, getErr := s.Get(ctx, rec.ID)
	_, claimErr := s.Claim(ctx, claim("a"), idempotency.Owner{})
	_, listErr := s.Unsettled(ctx, rec.Adoption)
	for method, err := range map[string]error{
		"Get": getErr, "Claim": claimErr, "Unsettled": listErr, "Finish": s.Finish(ctx, rec),
		"Release": s.Release(ctx, rec.ID, rec.Owner), "Tell": s.Tell(ctx, rec.ID, rec.Owner, time.Now()), "Settle": s.Settle(ctx, rec.ID, rec.Owner),
	} {
		var missing *store.NoKeyError
		if !errors.As(err, &missing) || missing.Key.String() != ring(t, 1).String() {
			t.Errorf("%s: %v", method, err)
		}
	}
	s.keys.Set(ring(t, 1))
	got, err := s.Get(ctx, rec.ID)
	if err != nil || got == nil || !reflect.DeepEqual(got.Answer, rec.Answer) {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}
