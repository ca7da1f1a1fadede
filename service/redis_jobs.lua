-- The state of jobs in Redis. One call is one atomic step, by Redis's own clock (milliseconds since 1970).
--   KEYS[1]    prefix of all keys, with a hash tag, so that a cluster keeps them together
--   ARGV[1]    the step; ARGV[2]  limits as JSON; the rest are the step's own
--   job:ID     hash      id owner status created started finished expires progress attempt losses turn bytes
--                        ask digest key trace result problem n_events; an absent field is none
--   events:ID  stream    entry N-0 is event N: name at progress
--   queue open running finished   sorted sets of ids: by turn, by turn (until ended), by end of lease, by end of results
--   key:NAME   id of the job that came with this idempotency key
local P, step, limits = KEYS[1], ARGV[1], cjson.decode(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local PROGRESS_STEP = 0.01

local function whole(n) return string.format('%.0f', n) end
local function job(id) return P .. 'job:' .. id end
local function get(id, name) return redis.call('HGET', job(id), name) end
local function set(id, ...) redis.call('HSET', job(id), ...) end
local function number(id, name) return tonumber(get(id, name) or '0') end

local function tell(id, name)
  local n = redis.call('HINCRBY', job(id), 'n_events', 1)
  redis.call('XADD', P .. 'events:' .. id, n .. '-0', 'name', name, 'at', whole(now), 'progress', get(id, 'progress'))
end

local function charge(id, bytes)
  redis.call('INCRBY', P .. 'bytes', whole(bytes - number(id, 'bytes')))
  set(id, 'bytes', whole(bytes))
end

local function requeue(id)
  redis.call('ZREM', P .. 'running', id)
  redis.call('ZADD', P .. 'queue', get(id, 'turn'), id)
  set(id, 'status', 'queued')
  tell(id, 'queued')
end

local function finish(id, status, event, keep_ms)
  for _, name in ipairs({'queue', 'open', 'running'}) do redis.call('ZREM', P .. name, id) end
  redis.call('ZADD', P .. 'finished', whole(now + keep_ms), id)
  set(id, 'status', status, 'finished', whole(now), 'expires', whole(now + keep_ms))
  tell(id, event)
end

-- Keep that it was, and nothing of what it was.
local function bury(id)
  if get(id, 'status') ~= 'canceled' then set(id, 'status', 'expired') end
  charge(id, 0)
  set(id, 'expires', whole(now))
  redis.call('ZREM', P .. 'finished', id)
  redis.call('HDEL', job(id), 'ask', 'result', 'problem', 'trace')
  local key = get(id, 'key')
  if key then redis.call('PEXPIRE', P .. 'key:' .. key, whole(limits.remember_ms)) end
  redis.call('PEXPIRE', P .. 'events:' .. id, whole(limits.remember_ms))
  redis.call('PEXPIRE', job(id), whole(limits.remember_ms))
end

local function held(id, attempt) return get(id, 'status') == 'running' and get(id, 'attempt') == attempt end

-- Whether this very claim has done it already: its answer was lost on the way, and it asks again.
local function done(id, attempt, status)
  return get(id, 'status') == status and get(id, 'attempt') == attempt and 1 or 0
end

local function seen(id)
  if redis.call('EXISTS', job(id)) == 0 then return false end
  local ahead = redis.call('ZRANK', P .. 'open', id)
  return {redis.call('HGETALL', job(id)), ahead or -1, whole(now)}
end

local steps = {}

-- id, digest, bytes, key ('' for none), then more fields of the hash
function steps.submit(id, digest, bytes, key, ...)
  local earlier = key ~= '' and redis.call('GET', P .. 'key:' .. key)
  if earlier and redis.call('EXISTS', job(earlier)) == 1 then
    if get(earlier, 'digest') ~= digest then return {'mismatch'} end
    return {'earlier', seen(earlier)}
  end
  local waiting = redis.call('ZCARD', P .. 'queue')
  if waiting >= limits.max_waiting then return {'many', waiting} end
  if tonumber(redis.call('GET', P .. 'bytes') or '0') + bytes > limits.max_bytes then return {'large'} end
  local turn = redis.call('INCR', P .. 'turns')
  set(id, 'id', id, 'digest', digest, 'status', 'queued', 'created', whole(now), 'progress', '0', 'turn', turn, ...)
  if key ~= '' then
    set(id, 'key', key)
    redis.call('SET', P .. 'key:' .. key, id)
  end
  charge(id, tonumber(bytes))
  redis.call('ZADD', P .. 'queue', turn, id)
  redis.call('ZADD', P .. 'open', turn, id)
  tell(id, 'queued')
  return {'created', seen(id)}
end

function steps.get(id) return seen(id) end

function steps.events(id, after)
  if redis.call('EXISTS', job(id)) == 0 then return false end
  return redis.call('XRANGE', P .. 'events:' .. id, '(' .. after .. '-0', '+')
end

function steps.cancel(id)
  local before = seen(id)
  if not before then return false end
  local status = get(id, 'status')
  if status == 'queued' or status == 'running' then
    finish(id, 'canceled', 'canceled', 0)
    bury(id)
  elseif status == 'succeeded' or status == 'failed' then
    bury(id)
  end
  return before
end

function steps.counts()
  return {redis.call('ZCARD', P .. 'queue'), redis.call('ZCARD', P .. 'running'), redis.call('GET', P .. 'bytes') or '0'}
end

-- problem of a job that was lost once too often
function steps.claim(worker, problem)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'running', '-inf', whole(now), 'LIMIT', 0, 100)) do
    if get(id, 'status') ~= 'running' then
      redis.call('ZREM', P .. 'running', id)
    elseif redis.call('HINCRBY', job(id), 'losses', 1) < limits.max_losses then
      requeue(id)
    else
      set(id, 'problem', problem)
      finish(id, 'failed', 'failed', limits.keep_ms)
      charge(id, 0)
    end
  end
  while true do
    local next = redis.call('ZPOPMIN', P .. 'queue')
    local id = next[1]
    if not id then return false end
    if get(id, 'status') == 'queued' then
      redis.call('ZADD', P .. 'running', whole(now + limits.lease_ms), id)
      local attempt = redis.call('HINCRBY', job(id), 'attempt', 1)
      set(id, 'status', 'running', 'worker', worker)
      redis.call('HSETNX', job(id), 'started', whole(now))
      tell(id, 'started')
      return {id, attempt, get(id, 'ask'), get(id, 'trace') or ''}
    end
  end
end

-- id, attempt, progress; again for each
function steps.report(...)
  local args, good = {...}, {}
  for i = 1, #args, 3 do
    local id, attempt, progress = args[i], args[i + 1], tonumber(args[i + 2])
    local mine = held(id, attempt)
    if mine then
      redis.call('ZADD', P .. 'running', whole(now + limits.lease_ms), id)
      if progress >= number(id, 'progress') + PROGRESS_STEP then
        set(id, 'progress', string.format('%.4f', math.min(progress, 1)))
        tell(id, 'progress')
      end
    end
    table.insert(good, mine and 1 or 0)
  end
  return good
end

function steps.succeed(id, attempt, result, bytes)
  if not held(id, attempt) then return done(id, attempt, 'succeeded') end
  set(id, 'result', result, 'progress', '1')
  charge(id, tonumber(bytes))
  finish(id, 'succeeded', 'completed', limits.keep_ms)
  return 1
end

function steps.fail(id, attempt, problem)
  if not held(id, attempt) then return done(id, attempt, 'failed') end
  set(id, 'problem', problem)
  charge(id, 0)
  finish(id, 'failed', 'failed', limits.keep_ms)
  return 1
end

function steps.release(id, attempt)
  if not held(id, attempt) then return done(id, attempt, 'queued') end
  requeue(id)
  return 1
end

function steps.expire()
  local ids = redis.call('ZRANGEBYSCORE', P .. 'finished', '-inf', whole(now), 'LIMIT', 0, 100)
  for _, id in ipairs(ids) do
    if redis.call('EXISTS', job(id)) == 1 then bury(id) else redis.call('ZREM', P .. 'finished', id) end
  end
  return ids
end

-- ids; those whose files are needed
function steps.with_files(...)
  local needed = {}
  for _, id in ipairs({...}) do
    local status = get(id, 'status')
    local kept = status == 'succeeded' and number(id, 'expires') > now
    if kept or status == 'queued' or status == 'running' then table.insert(needed, id) end
  end
  return needed
end

return steps[step](unpack(ARGV, 3))
