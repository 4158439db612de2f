package redis

import (
	"crypto/sha1"
	"encoding/hex"
)

// script is a Lua script. The numbers in the texts are those of head.go.
type script struct{ text, sha1 string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // what EVALSHA names scripts by
	return &script{text, hex.EncodeToString(sum[:])}
}

// Whatever ends a call goes on where Redis is out of memory: it needs little,
// and a call that cannot be ended blocks its key. A claim has no such flag; it
// fails with its first write, so that what stands in its way is still told.
const allowOOM = "#!lua flags=allow-oom\n"

// tellWatcher publishes that KEYS[1], whose head was h, has changed, if it is
// watched. It comes last, and must not undo what has been done before it.
const tellWatcher = `
local function tellWatcher(h, channel, id)
  if string.sub(h, 3, 3) == '1' then redis.pcall('PUBLISH', channel, 'r' .. id) end
end
`

// nowMillis is the server's clock, in ms since 1970.
const nowMillis = `
local function nowMillis()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
`

// claimScript: the value, its time to live in ms, its owner, the owner to claim
// over, channel, ID, until when by the server's clock the claim may be made, and
// news to tell of it, or ""; and '1' if it takes over a call that was handed over,
// which is settled then if it was. It returns nil, or the value that stands in the
// way. What the owner has released before is not claimed: this is a copy that comes
// late.
var claimScript = newScript(tellWatcher + nowMillis + `
local h = redis.call('GETRANGE', KEYS[1], 0, 74)
if h ~= '' and string.byte(h) ~= 0 then
  local owner = string.sub(h, 28, 43)
  if string.byte(h) ~= 1 or owner == string.rep('\0', 16) or owner ~= ARGV[3] and owner ~= ARGV[4] then
    return redis.call('GET', KEYS[1])
  end
  if owner == ARGV[3] then
    redis.call('SETRANGE', KEYS[1], 0, '\1') -- it changes nothing, and gives WAIT something to wait for
    return false
  end
end
if nowMillis() > tonumber(ARGV[7]) or string.sub(h, 1, 17) == '\0' .. ARGV[3] then
  return redis.error_reply('LATE the claim was given up before it came')
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if string.byte(h) == 1 then
  redis.call('SETRANGE', KEYS[1], 2, string.sub(h, 3, 3))
  if ARGV[9] == '1' and string.sub(h, 44, 75) == string.sub(ARGV[1], 44, 75) then
    redis.call('SETRANGE', KEYS[1], 1, string.sub(h, 2, 2))
  end
end
tellWatcher(h, ARGV[5], ARGV[6])
if ARGV[8] ~= '' then redis.pcall('PUBLISH', ARGV[5], ARGV[8]) end
return false
`)

// owns tells whether the record with head h is there and is owner's.
const owns = `
local function owns(h, owner)
  return h ~= '' and string.byte(h) == 1 and owner ~= string.rep('\0', 16) and string.sub(h, 28, 43) == owner
end
`

// finishScript: the value, its time to live in ms, its owner, channel, ID. It
// returns 1, or 0 if the record is not the owner's. What is not started is not
// started again by a change, nor is what has ended put back into the queue: such a
// change is a copy that comes late.
var finishScript = newScript(allowOOM + tellWatcher + owns + `
local h = redis.call('GETRANGE', KEYS[1], 0, 76)
if not owns(h, ARGV[3]) then return 0 end
local was, is = string.byte(h, 77), string.byte(ARGV[1], 77)
if is == 1 and was ~= 1 or is == 6 and was ~= 1 and was ~= 6 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SETRANGE', KEYS[1], 1, string.sub(h, 2, 19))
tellWatcher(h, ARGV[4], ARGV[5])
return 1
`)

// releaseScript: the owner, channel, ID, and for how many ms a claim of the
// owner's is not to come back. It returns nil if there is no record, "" if it is
// another's, else its head and the start of what follows; of one that is queued,
// all of it, since the place of its ticket is in there.
var releaseScript = newScript(allowOOM + tellWatcher + owns + `
local h = redis.call('GETRANGE', KEYS[1], 0, 330)
local absent = h == '' or string.byte(h) == 0
if not absent and not owns(h, ARGV[1]) then return '' end
if not absent and string.byte(h, 77) == 6 then h = redis.call('GET', KEYS[1]) end
redis.call('SET', KEYS[1], '\0' .. ARGV[1], 'PX', ARGV[4])
if absent then return false end
tellWatcher(h, ARGV[2], ARGV[3])
return h
`)

// settleScript: the owner. It returns the adoption if the record was unsettled,
// else "".
var settleScript = newScript(allowOOM + owns + `
local h = redis.call('GETRANGE', KEYS[1], 0, 74)
if not owns(h, ARGV[1]) or string.sub(h, 2, 2) ~= '1' then return '' end
redis.call('SETRANGE', KEYS[1], 1, '0')
return string.sub(h, 44, 75)
`)

// tellScript: the owner, the time.
var tellScript = newScript(allowOOM + owns + `
local h = redis.call('GETRANGE', KEYS[1], 0, 74)
if owns(h, ARGV[1]) then redis.call('SETRANGE', KEYS[1], 19, ARGV[2]) end
return 1
`)

// attendScript: the attendant to replace, and the next. It returns 1 if the
// record has the next now.
var attendScript = newScript(allowOOM + `
local h = redis.call('GETRANGE', KEYS[1], 0, 74)
if h == '' or string.byte(h) ~= 1 then return 0 end
local attendant = string.sub(h, 4, 19)
if attendant == ARGV[2] then return 1 end
if attendant ~= ARGV[1] then return 0 end
redis.call('SETRANGE', KEYS[1], 3, ARGV[2])
return 1
`)

// watchScript marks the record as watched.
var watchScript = newScript(allowOOM + `
local h = redis.call('GETRANGE', KEYS[1], 0, 0)
if h ~= '' and string.byte(h) == 1 then redis.call('SETRANGE', KEYS[1], 2, '1') end
return 1
`)

// listScript puts a member into a set of unsettled calls: the member, its time
// to live in ms. Before a claim, it is refused as that would be.
var (
	listScript       = newScript("#!lua\n" + listText)
	listAlwaysScript = newScript(allowOOM + listText)
)

const listText = nowMillis + `
local now, ttl = nowMillis(), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
redis.call('ZADD', KEYS[1], 'GT', string.format('%d', now + ttl), ARGV[1])
if redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
`

// beatScript notes that a process lives: how long that is remembered, in ms. It
// returns when that was noted before, and the server's clock.
var beatScript = newScript(allowOOM + nowMillis + `
local before, now = redis.call('GET', KEYS[1]), string.format('%d', nowMillis())
redis.call('SET', KEYS[1], now, 'PX', ARGV[1])
return {before, now}
`)

// lifeScript returns when a process was last heard of, and the server's clock.
var lifeScript = newScript("#!lua flags=no-writes\n" + nowMillis + `
return {redis.call('GET', KEYS[1]), string.format('%d', nowMillis())}
`)
