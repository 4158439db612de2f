package redis

// A budget is a hash, of one key, so that a script can change it in a Cluster too:
//
//	now       the latest time that a script went by
//	offset    how far that is ahead of the server's clock, where that was set back
//	tat       when the even emission has caught up with what was granted (GCRA)
//	interval  between two starts, by which tat was reckoned
//	b<end>    how many starts were granted in the bucket of time that ends then
//	held      until when nobody starts anything
//	low       the lowered limit as it is at
//	lowat     and grows from then on
//	p<hex>    of a process: when it was last heard of, its calls under way, until
//	          when it is expected back for more, when it was granted something
//	          last, and what it has to leave of starts and of places
//
// All times are µs since 1970.
//
// Two rules bind at once. GCRA alone lets its burst and then all of the limit
// through in one window, so that there is the window beside it, which forgets a
// start when the whole bucket of it is a window ago. A window alone lets all start
// at once, and then nothing for the rest of it.
//
// The interval is that of a window and a bucket, in place of a window: so an even
// emission never meets the window's rule, which would make it stutter. While that
// blocks, or a hold does, no burst is saved up.

// budgetState reads a budget. Its arguments: the process, its life, the starts, the
// window, the burst.
const budgetState = `
local me, life = 'p' .. ARGV[1], tonumber(ARGV[2])
local starts, window, burst = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local width = math.max(1, math.ceil(window / 100))

local state, set, del = {}, {}, {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
local function put(field, value)
  state[field], set[field] = value, value
end
local function drop(field)
  state[field], set[field] = nil, nil
  del[#del + 1] = field
end
-- %d, since a number that becomes a string by itself loses digits.
local function number(field) return tonumber(state[field] or '0') end
local function int(x) return string.format('%d', x) end

local clock = redis.call('TIME')
local offset = number('offset')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2]) + offset
if now < number('now') then
  -- The server's clock was set back, or another server's is behind it.
  put('offset', int(offset + number('now') - now))
  now = number('now')
end
put('now', int(now))

local used, count, ends = 0, {}, {}
for field, value in pairs(state) do
  local stop = tonumber(string.match(field, '^b(%d+)$'))
  if stop and stop + window <= now then
    del[#del + 1] = field
  elseif stop then
    count[stop], ends[#ends + 1] = tonumber(value), stop
    used = used + count[stop]
  end
end
for _, field in ipairs(del) do state[field] = nil end

local held = number('held')
if held > 0 and held <= now then drop('held') end

local limit = starts
if state.low and starts > 0 then
  limit = math.floor(number('low') + math.max(0, now - number('lowat')) / window * starts / 20)
  if limit >= starts then
    limit = starts
    drop('low')
    drop('lowat')
  end
end

-- roomAt returns from when on the window has room for n more.
local function roomAt(n)
  local over = used + n - limit
  if over <= 0 then return now end
  table.sort(ends)
  for _, stop in ipairs(ends) do
    over = over - count[stop]
    if over <= 0 then return stop + window end
  end
  return now + window
end

local function precise(x) return string.format('%.17g', x) end

-- emission returns what the even emission goes by: how many at once, how far apart.
-- Where the limit is not what it was, as many starts stay owed as were.
local function emission()
  local interval, before = (window + width) / limit, number('interval')
  if interval ~= before then
    if before > 0 and number('tat') > now then
      put('tat', precise(now + (number('tat') - now) * interval / before))
    end
    put('interval', precise(interval))
  end
  return math.min(burst, limit), interval
end

-- saveNothing has no more than one start be due at a time to come, and evenly from
-- there.
local function saveNothing(at)
  local most, interval = emission()
  put('tat', precise(math.max(number('tat'), at + (most - 1) * interval)))
end

local function save()
  local flat, last = {}, math.max(now + life, number('tat'), number('held'))
  for field, value in pairs(set) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  if #del > 0 then redis.call('HDEL', KEYS[1], unpack(del)) end -- first: it may have been put again
  redis.call('HSET', KEYS[1], unpack(flat))
  if used > 0 then last = math.max(last, now + window + width) end
  if state.low then last = math.max(last, number('lowat') + 20 * window) end
  redis.call('PEXPIRE', KEYS[1], int((last - now) / 1000 + 1000))
end
`

// takeScript further takes: how many at a time, how many are wanted, what has to be
// left of starts and of places, how many calls are under way, how many starts have
// come later than they were granted, and of each, how many µs ago that was; and the
// same of those that the process has made by itself. It returns how many are
// granted, and after how many µs there can be one more; how many were started in the
// window, and of how many; how many are under way; how many processes share the
// budget; and now.
//
// Who waits as well gets some too: of what there is, nobody gets more than a share
// for each that waits, and who was served longer ago is let go first, for as long
// as it can be expected to come.
var takeScript = newScript(allowOOM + budgetState + `
local places, want = tonumber(ARGV[6]), tonumber(ARGV[7])

local function bucketOf(at) return (math.floor(at / width) + 1) * width end
local function add(stop, n)
  if not count[stop] then ends[#ends + 1] = stop end
  count[stop] = (count[stop] or 0) + n
  put('b' .. int(stop), int(count[stop]))
  used = used + n
end
if starts > 0 then
  for i = 12, 11 + tonumber(ARGV[11]) do
    local was = bucketOf(now - tonumber(ARGV[i]))
    if (count[was] or 0) > 0 then add(was, -1) end
    add(bucketOf(now), 1)
  end
  local own = 12 + tonumber(ARGV[11])
  for i = own + 1, own + tonumber(ARGV[own]) do
    local stop = bucketOf(now - tonumber(ARGV[i]))
    if stop + window > now then add(stop, 1) end
  end
end

local leave, leavePlaces, mine = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local far = 1e15 -- no bound
local most, interval, due, room = far, 0, far, far
if starts > 0 then
  most, interval = emission()
  leave = math.min(leave, most - 1) -- who leaves all would never be served
  local ahead = math.max(0, number('tat') - now - 0.5) -- a number of that size is exact to 0.25
  due = math.floor(most - ahead / interval)
  room = limit - used
else
  leave = 0
end
if held > now then due = 0 end

local underWay, sharers, served, others = mine, 1, 0, {}
for field, value in pairs(state) do
  if string.sub(field, 1, 1) == 'p' then
    local heard, calls, back, last, needs, needsPlaces = string.match(value, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
    if field == me then
      served = tonumber(last)
    elseif tonumber(heard) + life <= now then
      del[#del + 1] = field
    else
      underWay, sharers = underWay + tonumber(calls), sharers + 1
      if tonumber(back) > now then
        others[#others + 1] = {back = tonumber(back), last = tonumber(last), leave = tonumber(needs), leavePlaces = tonumber(needsPlaces)}
      end
    end
  end
end
local free = far
if places > 0 then
  free = places - underWay
  leavePlaces = math.min(leavePlaces, places - 1)
else
  leavePlaces = 0
end

local turns, letGo = 0, far
for _, o in ipairs(others) do
  if o.last < served and math.min(due, room) > o.leave and free > o.leavePlaces then
    turns, letGo = turns + 1, math.min(letGo, o.back - now)
  end
end
local possible = math.min(due - leave, room - leave, free - leavePlaces)
local granted = math.min(want, math.ceil(possible / (#others + 1)), possible - turns)
granted = math.max(granted, 0)

if granted > 0 and starts > 0 then
  add(bucketOf(now), granted)
  put('tat', precise(math.max(now, number('tat')) + granted * interval))
end
if starts > 0 and used >= limit then saveNothing(roomAt(1)) end

local at = math.max(now, held)
if starts > 0 then at = math.max(at, number('tat') + (leave + 1 - most) * interval, roomAt(leave + 1)) end
local wait = math.ceil(at - now)
if wait == 0 and granted < want and free - granted > leavePlaces then
  -- There is one more, but somebody else may come for it first.
  wait = math.ceil(math.max(1000, granted > 0 and 0 or math.min(letGo, interval)))
end

local back = 0
if granted < want then back = now + wait + 150000 end
if granted > 0 then served = now end
put(me, string.format('%d %d %d %d %d %d', now, mine + granted, back, served, leave, leavePlaces))
save()
return {granted, wait, used, limit, underWay + granted, sharers, now}
`)

// holdScript further takes: for how long.
var holdScript = newScript(allowOOM + budgetState + `
local till = math.max(held, now + tonumber(ARGV[6]))
put('held', int(till))
if starts > 0 then
  if held <= now then
    -- No less than what it grows by in a window: a limit of 1, after the only call
    -- for a while was refused, would be a stop that the upstream has not asked for.
    limit = math.min(limit, math.max(used, math.floor(starts / 20), 1))
    put('low', int(limit))
  end
  if state.low then put('lowat', int(till)) end
  saveNothing(till)
end
save()
return 1
`)
