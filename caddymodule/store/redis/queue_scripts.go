package redis

// The backlog is a stream for each of its parts, <prefix>{queue}:<part>, each entry
// of which is a ticket (see queue.go). A hash, <prefix>{queue}:n, has how many
// tickets there are in all, and of how many bytes; another, <prefix>{queue}:l, who
// works on what. All are in one slot of a Cluster, so that one script can keep
// bounds over all parts.
//
// There is no consumer group: it would hand the calls of one lane to several
// sidecars at a time, and their order would be lost. It is parts that are handed
// out in place of calls.

// enqueueScript puts a ticket at the end of a part: bounds of calls and of bytes,
// then what the ticket holds. It returns its place there, or nil if there is no
// room. Redis refuses it where it is out of memory.
var enqueueScript = newScript("#!lua\n" + queueCounts + `
local calls, bytes = counts()
local maxCalls, maxBytes, size = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
if maxCalls > 0 and calls + 1 > maxCalls or maxBytes > 0 and bytes + size > maxBytes then return false end
local at = redis.call('XADD', KEYS[1], '*', 'c', ARGV[3], 't', ARGV[4], 'n', ARGV[5])
count(calls + 1, bytes + size)
return at
`)

// dequeueScript takes a ticket out of a part, if it is there.
var dequeueScript = newScript(allowOOM + queueCounts + `
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
local calls, bytes = counts()
count(calls - 1, bytes - tonumber(found[2][6]))
return 1
`)

// queueCounts reads and writes the counts of the whole backlog.
const queueCounts = `
local function counts()
  local n = {calls = 0, bytes = 0}
  local flat = redis.call('HGETALL', KEYS[2])
  for i = 1, #flat, 2 do n[flat[i]] = tonumber(flat[i + 1]) end
  return n.calls, n.bytes
end
local function count(calls, bytes)
  if calls <= 0 then return redis.call('DEL', KEYS[2]) end
  redis.call('HSET', KEYS[2], 'calls', string.format('%d', calls), 'bytes', string.format('%d', bytes))
end
`

// depthScript returns the counts, and since when the first ticket of each part is
// there that has any.
var depthScript = newScript("#!lua flags=no-writes\n" + `
local n = {calls = '0', bytes = '0'}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do n[flat[i]] = flat[i + 1] end
local all = {n.calls, n.bytes}
for i = 2, #KEYS do
  local first = redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)[1]
  if first then all[#all + 1] = first[2][4] end
end
return all
`)

// partsScript divides the parts among the processes that ask for some: a process,
// how long it lives after it asked, how many parts there are, and what tells this
// asking from its others, also where it is sent twice. It returns the parts of the
// process.
//
// The hash has p<process>, when it last asked, and <part>, its process. Who has
// more than its share, since there are more processes now, is not told of the
// rest; but that is the next one's only after another asking, by which the process
// has certainly heard of it. Until then the asking stands behind the process.
var partsScript = newScript(allowOOM + nowMillis + `
local me, life, parts, asking = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now = nowMillis()
local asked, holders, set, del = {}, {}, {}, {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local process = string.match(flat[i], '^p(.+)$')
  if process then asked[process] = tonumber(flat[i + 1]) else holders[flat[i]] = flat[i + 1] end
end
asked[me] = now
local function put(field, value)
  set[#set + 1] = field
  set[#set + 1] = value
end
put('p' .. me, string.format('%d', now))
local living = 0
for process, at in pairs(asked) do
  if math.abs(now - at) < life then
    living = living + 1
  else
    del[#del + 1] = 'p' .. process
    asked[process] = nil
  end
end

local share = math.ceil(parts / living)
local mine, free = {}, {}
for i = 0, parts - 1 do
  local part = string.format('%d', i)
  local process, given = string.match(holders[part] or '', '^(%S+) ?(%S*)$')
  if not process or not asked[process] or process == me and given ~= '' and given ~= asking then
    free[#free + 1] = part
  elseif process == me and given == '' then
    mine[#mine + 1] = part
  end
end
for i = #mine, share + 1, -1 do
  put(mine[i], me .. ' ' .. asking)
  mine[i] = nil
end
for i, part in ipairs(free) do
  if #mine < share then
    put(part, me)
    mine[#mine + 1] = part
  elseif holders[part] then
    del[#del + 1] = part
  end
end
if #del > 0 then redis.call('HDEL', KEYS[1], unpack(del)) end
redis.call('HSET', KEYS[1], unpack(set))
redis.call('PEXPIRE', KEYS[1], string.format('%d', 2 * life))
return mine
`)

// leavePartsScript gives back all parts of a process.
var leavePartsScript = newScript(allowOOM + `
local gone = {'p' .. ARGV[1]}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  if string.match(flat[i + 1], '^%S+') == ARGV[1] then gone[#gone + 1] = flat[i] end
end
return redis.call('HDEL', KEYS[1], unpack(gone))
`)
