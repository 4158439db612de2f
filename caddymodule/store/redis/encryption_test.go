package redis_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
	"genesys-sidecar/caddymodule/store/storetest"
)

// ring returns a keyring of keys that differ where numbers do.
func ring(t *testing.T, numbers ...byte) *store.Keyring {
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
	server := redistest.New(t, redistest.Options{Args: safe})
	where := endpoint(t, server.URL())
	t.Run("store", func(t *testing.T) {
		reopen := func(t *testing.T, now func() time.Time) idempotency.Store {
			return open(t, redis.Options{Endpoint: where, Prefix: t.Name() + ":", Now: now, Keyring: ring(t, 1)})
		}
		storetest.Run(t, storetest.Harness{RealTime: true, Open: reopen, Reopen: reopen})
	})
	t.Run("shared", func(t *testing.T) {
		storetest.RunShared(t, storetest.SharedHarness{
			Lease: lease,
			Open: func(t *testing.T, n int) []idempotency.SharedStore {
				prefix := newPrefix()
				stores := make([]idempotency.SharedStore, n)
				for i := range stores { // each encrypts with another key, as while keys rotate
					stores[i] = open(t, redis.Options{Endpoint: where, Prefix: prefix, Keyring: ring(t, byte(1+i%2), byte(2-i%2))})
				}
				return stores
			},
		})
	})
}

// rawClient returns a client of server's own.
func rawClient(t *testing.T, server *redistest.Server) rueidis.Client {
	t.Helper()
	option, err := rueidis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// values returns the values of the records in Redis, by key.
func values(t *testing.T, client rueidis.Client) map[string]string {
	t.Helper()
	keys, err := client.Do(t.Context(), client.B().Keys().Pattern("*:r:*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, key := range keys {
		if all[key], err = client.Do(t.Context(), client.B().Get().Key(key).Build()).ToString(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func set(t *testing.T, client rueidis.Client, key, value string) {
	t.Helper()
	if err := client.Do(t.Context(), client.B().Set().Key(key).Value(value).Px(time.Hour).Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

func TestNothingOfARecordIsReadableInRedis(t *testing.T) {
	const canary = "canary-c4f1"
	for name, test := range map[string]struct {
		keys *store.Keyring
		want bool
	}{"encrypted": {ring(t, 1), false}, "not encrypted": {nil, true}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.New(t, redistest.Options{Args: safe})
			s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), Keyring: test.keys})
			rec := started("a")
			rec.Key, rec.UpstreamKey, rec.Label.Action = canary+"-key", canary+"-upstream", canary+"-action"
			mustClaim(t, s, rec)
			d := done(rec, 10)
			d.Journal.Words = []idempotency.Word{{Note: canary + "-note"}}
			d.Answer.Header = idempotency.NewHeader(http.Header{"X-Told": {canary + "-header"}})
			d.Answer.Body = []byte(canary + "-body")
			client := rawClient(t, server)
			look := func() {
				t.Helper()
				all := values(t, client)
				for _, value := range all {
					if found := strings.Contains(value, canary); found != test.want {
						t.Errorf("found is %t", found)
					}
				}
				if len(all) != 1 {
					t.Errorf("there are %d values", len(all))
				}
			}
			look()
			if err := s.Finish(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			look()
		})
	}
}

func TestAWrongKeyRefusesEverythingUntilItIsThere(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	where := endpoint(t, server.URL())
	first := opened(t, redis.Options{Endpoint: where, Keyring: ring(t, 1)})
	rec := started("a")
	mustClaim(t, first, rec)
	if err := first.Finish(t.Context(), done(rec, 10)); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string]*store.Keyring{"another key": ring(t, 2), "no key": nil} {
		var log logBuffer
		s := open(t, redis.Options{Endpoint: where, Keyring: keys, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		_, getErr := s.Get(t.Context(), rec.ID)
		_, claimErr := claim(s, started("another"))
		for method, err := range map[string]error{"Get": getErr, "Claim": claimErr} {
			var missing *store.KeysMissingError
			if !errors.As(err, &missing) {
				t.Errorf("%s, %s: %v", name, method, err)
			}
		}
		for _, want := range []string{"it is encrypted with key " + ring(t, 1).String(), "1 record needs it, until 20", "add that key to encryption_key"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: the log does not tell %q: %s", name, want, log.String())
			}
		}
		if err := s.SetKeyring(keys.With(ring(t, 1))); err != nil {
			t.Errorf("%s: mending it: %v", name, err)
		}
		eventually(t, "it serves with the key", func() bool { return serves(s) })
		wantState(t, s, rec.ID, idempotency.Done)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFleetRotatesItsKeyWithoutAPause(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	where := endpoint(t, server.URL())
	a := opened(t, redis.Options{Endpoint: where, Keyring: ring(t, 1)})
	b := opened(t, redis.Options{Endpoint: where, Keyring: ring(t, 1)})
	n := 0
	bothServe := func(step string) {
		t.Helper()
		for _, pair := range [][2]*redis.Store{{a, b}, {b, a}} {
			n++
			rec := started(step + string(rune('0'+n)))
			mustClaim(t, pair[0], rec)
			wantState(t, pair[1], rec.ID, idempotency.Started)
			if err := pair[0].Finish(t.Context(), done(rec, 10)); err != nil {
				t.Fatal(err)
			}
			wantState(t, pair[1], rec.ID, idempotency.Done)
		}
	}
	change := func(s *redis.Store, numbers ...byte) {
		t.Helper()
		if err := s.SetKeyring(ring(t, numbers...)); err != nil {
			t.Fatal(err)
		}
	}
	bothServe("before")
	change(a, 1, 2)
	bothServe("half has the second key")
	change(b, 1, 2)
	change(a, 2, 1)
	bothServe("half encrypts with the second key")
	change(b, 2, 1)
	bothServe("all encrypt with the second key")
	if err := a.SetKeyring(ring(t, 2)); err == nil || !strings.Contains(err.Error(), "it is encrypted with key "+ring(t, 1).String()) {
		t.Fatalf("the first key could be taken away: %v", err)
	}
	bothServe("a change was refused")

	client := rawClient(t, server)
	for key, value := range values(t, client) {
		if _, id, _, err := store.DecodeClear([]byte(value[75:])); err == nil && id.String() == ring(t, 1).String() {
			if err := client.Do(t.Context(), client.B().Del().Key(key).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	change(a, 2)
	change(b, 2)
	bothServe("the first key is gone")
}

func TestARecordThatOthersEncryptWithAnUnknownKeyIsNeverAbsent(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	where := endpoint(t, server.URL())
	a := opened(t, redis.Options{Endpoint: where, Keyring: ring(t, 1)})
	b := opened(t, redis.Options{Endpoint: where, Keyring: ring(t, 1)})
	if err := b.SetKeyring(ring(t, 2, 1)); err != nil { // and was not added to a before
		t.Fatal(err)
	}
	rec := started("a")
	rec.Adoption = idempotency.AdoptionID{7}
	mustClaim(t, b, rec)
	_, getErr := a.Get(t.Context(), rec.ID)
	_, claimErr := a.Claim(t.Context(), started("a"), idempotency.Owner{})
	_, listErr := a.Unsettled(t.Context(), rec.Adoption)
	for method, err := range map[string]error{"Get": getErr, "Claim": claimErr, "Unsettled": listErr} {
		var missing *store.NoKeyError
		if !errors.As(err, &missing) || missing.Key.String() != ring(t, 2).String() {
			t.Errorf("%s: %v", method, err)
		}
	}
	if !errors.Is(claimErr, idempotency.ErrNotMade) {
		t.Errorf("whether the claim was made is open: %v", claimErr)
	}
}

func TestAChangedOrMovedRecordIsAnError(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), Prefix: "p:", Keyring: ring(t, 1)})
	client := rawClient(t, server)
	a := started("a")
	a.Adoption = idempotency.AdoptionID{1}
	mustClaim(t, s, a)
	var key, value string
	for key, value = range values(t, client) {
	}
	if len(value) < 80 || value[76] != byte(idempotency.Started) {
		t.Fatalf("its state is not where scripts look for it: %q", value)
	}
	change := func(at int, to byte) string {
		b := []byte(value)
		b[at] = to
		return string(b)
	}
	for name, changed := range map[string]string{
		"its state": change(76, byte(idempotency.Released)), "the owner in its head": change(30, value[30]^1), "the adoption ID in its head": change(50, value[50]^1),
	} {
		set(t, client, key, changed)
		if rec, err := s.Get(t.Context(), a.ID); rec != nil || !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s was changed: %+v, %v", name, rec, err)
		}
	}
	set(t, client, key, value)
	wantState(t, s, a.ID, idempotency.Started)

	b := started("b")
	mustClaim(t, s, b)
	for other := range values(t, client) {
		set(t, client, other, value)
	}
	if rec, err := s.Get(t.Context(), b.ID); rec != nil || !errors.Is(err, store.ErrDamaged) {
		t.Errorf("it was moved: %+v, %v", rec, err)
	}
	if rec, err := s.Claim(t.Context(), b, idempotency.Owner{}); rec != nil && rec.ID != b.ID || err == nil && rec != nil {
		t.Errorf("claiming it: %+v, %v", rec, err)
	}
}

func TestWithoutTheRightToScanAMissingKeyIsToldAllTheSame(t *testing.T) {
	server := redistest.New(t, redistest.Options{
		Args: append([]string{"--user", "sidecar", "on", ">pw"}, strings.Fields(rights)...),
	})
	where := endpoint(t, strings.Replace(server.URL(), "redis://", "redis://sidecar:pw@", 1))
	a := opened(t, redis.Options{Endpoint: where, Keyring: ring(t, 1)})
	mustClaim(t, a, started("a"))
	if err := a.SetKeyring(ring(t, 2, 1)); err != nil {
		t.Errorf("rotating: %v", err)
	}
	err := a.SetKeyring(ring(t, 2))
	if err == nil || !strings.Contains(err.Error(), "key "+ring(t, 1).String()) || !strings.Contains(err.Error(), "cannot be found out") {
		t.Errorf("got %v", err)
	}
	if !serves(a) {
		t.Error("it does not serve afterwards")
	}
}

func TestKeysCanBeChangedWhileRedisIsAway(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), Keyring: ring(t, 1)})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of Redis is noticed", func() bool {
		_, err := s.Get(context.Background(), idempotency.ID{1})
		return err != nil && strings.Contains(err.Error(), "does not answer")
	})
	if err := s.SetKeyring(ring(t, 2, 1)); err != nil {
		t.Error(err)
	}
}

func TestTheRecordsOfAllNodesOfAClusterAreLookedAtForAMissingKey(t *testing.T) {
	cluster := redistest.NewCluster(t, 3, redistest.Options{Args: safe})
	var urls []string
	for _, addr := range cluster.Addrs() {
		urls = append(urls, "redis://"+addr)
	}
	where := endpoint(t, urls...)
	a := opened(t, redis.Options{Endpoint: where, Prefix: "[odd]*:", Keyring: ring(t, 1)})
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
		mustClaim(t, a, started(name))
	}
	b := opened(t, redis.Options{Endpoint: where, Prefix: "[odd]*:", Keyring: ring(t, 2)})
	var missing *store.KeysMissingError
	if _, err := b.Get(t.Context(), started("a").ID); !errors.As(err, &missing) || missing.Err != nil {
		t.Fatalf("got %v", err)
	}
	for id, use := range missing.Uses {
		if id.String() != ring(t, 1).String() || use.Records != 12 || use.Until.Before(time.Now()) {
			t.Errorf("key %s: %+v", id, use)
		}
	}
}

func TestAKeyLeavesTheListOnceNobodyIsAboutToUseIt(t *testing.T) {
	for name, test := range map[string]struct {
		noted time.Duration // ago
		want  string
	}{
		"noted a moment ago":    {time.Second, ring(t, 1).String() + " " + ring(t, 2).String()},
		"not noted for an hour": {time.Hour, ring(t, 2).String()},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.New(t, redistest.Options{Args: safe})
			client, key := rawClient(t, server), redis.DefaultPrefix+"k"
			at := float64(time.Now().Add(-test.noted).UnixMilli())
			if err := client.Do(t.Context(), client.B().Zadd().Key(key).ScoreMember().ScoreMember(at, ring(t, 1).String()).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), Keyring: ring(t, 2)})
			if !serves(s) {
				t.Error("a key that no record needs keeps the store from serving")
			}
			listed, err := client.Do(t.Context(), client.B().Zrange().Key(key).Min("0").Max("-1").Build()).AsStrSlice()
			slices.Sort(listed)
			want := strings.Fields(test.want)
			slices.Sort(want)
			if err != nil || !slices.Equal(listed, want) {
				t.Errorf("%q are listed, %v; want %q", listed, err, want)
			}
		})
	}
}
