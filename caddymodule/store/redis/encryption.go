package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/store"
)

const (
	// keyNoteInterval is how often it is noted again which key encrypts: Redis
	// may have been emptied, or somebody may have taken the key off the list.
	keyNoteInterval = time.Minute

	// keyNoteLife is for how long a key stays on the list after it was noted,
	// whether a record needs it or not: another sidecar may be about to.
	keyNoteLife = 5 * keyNoteInterval

	// keyScanTimeout bounds the search for records that need a key.
	keyScanTimeout = time.Minute

	// keyScanInterval is how often, while a key is missing, that search is made.
	keyScanInterval = 10 * time.Second

	// keyScanCount is about how many keys of Redis' are looked at a time.
	keyScanCount = 1000

	// clearSize is more than a sealed record has in the clear, in bytes.
	clearSize = 256
)

// keyTrouble is why the store could not be used for its keys.
type keyTrouble struct {
	mu   sync.Mutex
	err  error          // guarded by mu; nil: it could
	ring *store.Keyring // guarded by mu; whose keys they were
	at   time.Time      // guarded by mu; when that was found out
}

// SetKeyring makes ring the keys that records are encrypted with from now on. It
// fails, and changes nothing, where records need a key that ring does not have;
// the error wraps a store.KeysMissingError then. While Redis does not answer, that is not known:
// then they are changed, and if one is missing, the store refuses everything
// once Redis is back.
//
// In a fleet, a new key is to be added to all sidecars before it becomes the
// first of one: who does not have it cannot read what that writes.
func (s *Store) SetKeyring(ring *store.Keyring) error {
	client, err := s.link.get()
	if err != nil {
		s.keys.Set(ring)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), keyScanTimeout)
	defer cancel()
	if err := s.keys.Change(ctx, ring, keyList{s, client}); err != nil {
		return fmt.Errorf("changing the keys of the store in redis: %w", err)
	}
	return nil
}

// checkKeys checks that the records that client leads to can be decrypted.
func (s *Store) checkKeys(client rueidis.Client) error {
	t := &s.keyTrouble
	t.mu.Lock()
	defer t.mu.Unlock()
	ring := s.keys.Ring()
	if t.err != nil && t.ring == ring && time.Since(t.at) < keyScanInterval {
		return t.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), keyScanTimeout)
	defer cancel()
	err := s.keys.Check(ctx, keyList{s, client})
	t.err, t.ring, t.at = nil, ring, time.Now()
	if isKeyTrouble(err) {
		t.err = err
	}
	return err
}

func isKeyTrouble(err error) bool {
	var missing *store.KeysMissingError
	return errors.As(err, &missing)
}

// noteKey notes the key that encrypts, if that was not done lately.
func (s *Store) noteKey(client rueidis.Client, last *time.Time) {
	id, ok := s.keys.Ring().First()
	if !ok || time.Since(*last) < keyNoteInterval {
		return
	}
	*last = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.options.CommandTimeout)
	defer cancel()
	if err := (keyList{s, client}).Note(ctx, id); err != nil {
		s.log.Debug("noting which key is in use", slog.Any("error", err))
	}
}

// keyList is the store.KeyList of what client leads to: a sorted set of key IDs,
// each with when it was noted last, by the server's clock. (Sets of calls are such
// ones as well, so that Redis' user needs no further rights.)
type keyList struct {
	s      *Store
	client rueidis.Client
}

var _ store.KeyList = keyList{}

func (l keyList) key() string { return l.s.options.Prefix + "k" }

// Listed implements store.KeyList.
func (l keyList) Listed(ctx context.Context) (ids []store.KeyID, err error) {
	noted, err := l.client.Do(ctx, l.client.B().Zrange().Key(l.key()).Min("0").Max("-1").Build()).AsStrSlice()
	if err != nil {
		return nil, err
	}
	for _, text := range noted {
		id, err := store.ParseKeyID(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Note implements store.KeyList.
func (l keyList) Note(ctx context.Context, id store.KeyID) error {
	note := evaluation{script: noteKeyScript, key: l.key(), args: []string{id.String()}}
	return evaluate(ctx, l.client, note).Error()
}

// Drop implements store.KeyList.
func (l keyList) Drop(ctx context.Context, ids []store.KeyID) error {
	args := []string{strconv.FormatInt(keyNoteLife.Milliseconds(), 10)}
	for _, id := range ids {
		args = append(args, id.String())
	}
	return evaluate(ctx, l.client, evaluation{script: dropKeysScript, key: l.key(), args: args}).Error()
}

// Uses implements store.KeyList. It goes through all records.
func (l keyList) Uses(ctx context.Context, ids []store.KeyID) (store.KeyUses, error) {
	uses := make(store.KeyUses)
	for addr, node := range l.client.Nodes() {
		about, err := ask(ctx, node)
		if err == nil && about["role"] != "slave" {
			err = l.usesAt(ctx, node, ids, uses)
		}
		if err != nil {
			return nil, fmt.Errorf("asking %s: %w", addr, err)
		}
	}
	return uses, nil
}

func (l keyList) usesAt(ctx context.Context, node rueidis.Client, ids []store.KeyID, uses store.KeyUses) error {
	pattern := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(l.s.options.Prefix+"r:") + "*"
	seen := make(map[string]bool) // SCAN may return a key twice
	for cursor := uint64(0); ; {
		page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(keyScanCount).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		var commands []rueidis.Completed
		for _, key := range page.Elements {
			commands = append(commands,
				node.B().Getrange().Key(key).Start(headSize).End(headSize+clearSize-1).Build(),
				node.B().Pttl().Key(key).Build())
		}
		var results []rueidis.RedisResult
		if len(commands) > 0 {
			results = node.DoMulti(ctx, commands...)
		}
		for i := 0; i+1 < len(results); i += 2 {
			value, err := results[i].AsBytes()
			if err != nil {
				return err
			}
			ttl, err := results[i+1].AsInt64()
			if err != nil {
				return err
			}
			clear, id, need, err := store.DecodeClear(value)
			if err != nil || need > 0 || clear == nil || ttl < 0 || !slices.Contains(ids, id) {
				continue // it is plain, gone, or damaged, which who reads it is told
			}
			if key := page.Elements[i/2]; !seen[key] {
				seen[key] = true
				uses.Add(id, time.Now().Add(time.Duration(ttl)*time.Millisecond))
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

// Barrier implements store.KeyList.
func (l keyList) Barrier() {
	l.s.writing.Lock()
	defer l.s.writing.Unlock()
}

// noteKeyScript notes a key: its ID.
var noteKeyScript = newScript(allowOOM + nowMillis + `
return redis.call('ZADD', KEYS[1], string.format('%d', nowMillis()), ARGV[1])
`)

// dropKeysScript drops keys, unless they were noted lately: for how many ms that
// is, their IDs.
var dropKeysScript = newScript(allowOOM + nowMillis + `
local old = string.format('%d', nowMillis() - tonumber(ARGV[1]))
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', old, 'BYSCORE')) do
  for i = 2, #ARGV do
    if ARGV[i] == id then redis.call('ZREM', KEYS[1], id) end
  end
end
return 1
`)
