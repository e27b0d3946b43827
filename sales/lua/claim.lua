-- claim.lua: who gets a unit. The only script that takes one.
--
-- The three constants below are written into the text when a sale is armed, so each arming has
-- its own SHA. Redis forgets scripts on a restart and does not copy them to replicas, so
-- NOSCRIPT means "another incarnation": callers fail closed and never load it again.
--
-- KEYS[1] gate       hash: the running image of the pool (see arm.lua)
-- KEYS[2] claims     hash: order id -> <letter><quantity>:<claimed_at ms>:<epoch>:<customer>
--                    letter: h held, q queued, s settled, r released
-- KEYS[3] customers  hash: customer -> <units>:<last order id>
-- KEYS[4] pending    sorted set: order ids that are held, by claimed_at ms
-- ARGV               four per attempt: order id, customer, quantity, "1" if admitted else "0"
--
-- Reply: now ms, then three per attempt: a verdict and two details
--   claimed             claimed_at ms, letter
--   replayed            claimed_at ms, letter     the key is known: outranks every refusal
--   key_reused          "", ""                    the key is known with another quantity
--   not_open            opens_at ms, ""           before the window, or not opened yet
--   closed              closes_at ms, ""
--   paused              "", ""
--   admission_required  "", ""                    the waiting room is on
--   busy                wait ms, claims           no token left in the bucket
--   limit_reached       last order id, ""
--   sold_out            units held, claims        held units may still come back
-- `claims` is how many the gate knows; "" from sold_out while some units remain
-- Errors: FENCED gate | FENCED epoch | FENCED incarnation: nothing was decided, nothing written

local GATE = '@GATE@'
local EPOCH = '@EPOCH@'
local INCARNATION = '@INCARNATION@'

if KEYS[1] ~= GATE then return redis.error_reply('FENCED gate') end
-- A failover and back finds this script still loaded, over data that may lack what was granted
-- meanwhile. Even "sold out" would be a lie then, to somebody who has a unit (I5).
local replication = redis.call('INFO', 'replication')
if string.match(replication, 'master_replid:(%x+)') ~= INCARNATION then
  return redis.error_reply('FENCED incarnation')
end
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'opens_at', 'closes_at', 'remaining',
  'held', 'limit', 'rate', 'burst', 'tokens', 'tokens_at', 'admission_required', 'back_at')
if gate[1] ~= EPOCH then return redis.error_reply('FENCED epoch') end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state, opens_at, closes_at = gate[2], tonumber(gate[3]), tonumber(gate[4])
local remaining, held, limit = tonumber(gate[5]), tonumber(gate[6]), tonumber(gate[7])
local rate, burst = tonumber(gate[8]), tonumber(gate[9])
-- A clock that steps back adds no tokens and takes none away; counting starts anew from there.
local tokens_at = tonumber(gate[11])
local elapsed = math.max(0, now - tokens_at)
local tokens = math.min(burst, tonumber(gate[10]) + elapsed * rate / 1000)
local admission_required = gate[12] == '1'
-- Units that came back after the last was gone are granted when no process repeats "sold out" any more
-- (REPEAT_SECONDS of sales/refusals.py): else one could refuse a key that another was granted. I5.
local REPEATED = 51
local back_at = tonumber(gate[13]) or 0
local coming_back = back_at <= now and now < back_at + REPEATED  -- a clock that was set back delays nothing

local function window()
  if state == 'closed' or now >= closes_at then return 'closed', closes_at end
  if state == 'armed' or now < opens_at then return 'not_open', opens_at end
  if state ~= 'open' then return 'paused', '' end
end

-- All checks first, all writes last: Lua has no rollback. What this call itself has granted is
-- remembered here, so that two attempts of one customer in one batch see each other.
local claims, customers = {}, {}
local new_claims, new_customers, new_pending = {}, {}, {}
local spent, taken = now < tokens_at, 0

-- A claim is never forgotten while the gate stands: their number tells a process that knows some of
-- them whether it knows all of them (sales/refusals.py).
local before
local function claims_known()
  before = before or redis.call('HLEN', KEYS[2])
  return before + #new_claims / 2
end

local function decide(id, customer, quantity, admitted)
  local known = claims[id] or redis.call('HGET', KEYS[2], id)
  if known then
    local letter, units, claimed_at = string.match(known, '^(%a)(%d+):(%d+):')
    if tonumber(units) ~= quantity then return 'key_reused', '', '' end
    return 'replayed', claimed_at, letter
  end
  local refusal, detail = window()
  if refusal then return refusal, detail, '' end
  if admission_required and not admitted then return 'admission_required', '', '' end
  if tokens < 1 then return 'busy', math.ceil((1 - tokens) * 1000 / rate), claims_known() end
  tokens, spent = tokens - 1, true
  local count = customers[customer] or redis.call('HGET', KEYS[3], customer)
  local units, last = 0, ''
  if count then units, last = string.match(count, '^(%d+):(.*)$') end
  if units + quantity > limit then return 'limit_reached', last, '' end
  if coming_back then return 'sold_out', math.max(held, 1), '' end
  if quantity > remaining then return 'sold_out', held, remaining == 0 and claims_known() or '' end
  remaining, held, taken = remaining - quantity, held + quantity, taken + quantity
  claims[id] = 'h' .. quantity .. ':' .. now .. ':' .. EPOCH .. ':' .. customer
  customers[customer] = (units + quantity) .. ':' .. id
  new_claims[#new_claims + 1] = id
  new_claims[#new_claims + 1] = claims[id]
  new_customers[#new_customers + 1] = customer
  new_customers[#new_customers + 1] = customers[customer]
  new_pending[#new_pending + 1] = now
  new_pending[#new_pending + 1] = id
  return 'claimed', now, 'h'
end

local reply = { now }
for i = 1, #ARGV, 4 do
  local verdict, first, second = decide(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3] == '1')
  reply[#reply + 1] = verdict
  reply[#reply + 1] = first
  reply[#reply + 1] = second
end

if taken > 0 then
  redis.call('HSET', KEYS[1], 'remaining', remaining, 'held', held)
  redis.call('HSET', KEYS[2], unpack(new_claims))
  redis.call('HSET', KEYS[3], unpack(new_customers))
  redis.call('ZADD', KEYS[4], unpack(new_pending))
end
if spent then
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'tokens_at', now)
end
return reply
