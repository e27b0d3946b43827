#!lua flags=allow-oom
-- release.lua: gives the units of claims back, exactly once each. Only the consumer's result
-- may call it: a claim whose append timed out may well stand in the log.
--
-- KEYS[1] gate  KEYS[2] claims  KEYS[3] customers  KEYS[4] pending
-- ARGV  order ids
--
-- Reply: how many claims were released. The claim stays known as released, so that its key
-- replays for ever. Passed over: unknown claims and released ones. Which epoch granted a claim
-- does not matter: a row that is refused or cancelled will never be anything else.

local names = { h = 'held', q = 'queued', s = 'settled' }
local released = 0
local none_left = redis.call('HGET', KEYS[1], 'remaining') == '0'
for i = 1, #ARGV do
  local claim = redis.call('HGET', KEYS[2], ARGV[i])
  local name = claim and names[string.sub(claim, 1, 1)]
  if name then
    local units, customer = string.match(claim, '^%a(%d+):%d+:%d+:(.*)$')
    redis.call('HSET', KEYS[2], ARGV[i], 'r' .. string.sub(claim, 2))
    redis.call('HINCRBY', KEYS[1], name, -units)
    redis.call('HINCRBY', KEYS[1], 'remaining', units)
    redis.call('HINCRBY', KEYS[1], 'released', units)
    redis.call('ZREM', KEYS[4], ARGV[i])
    local count = redis.call('HGET', KEYS[3], customer)
    if count then
      local taken, last = string.match(count, '^(%d+):(.*)$')
      if tonumber(taken) <= tonumber(units) then
        redis.call('HDEL', KEYS[3], customer)
      else
        redis.call('HSET', KEYS[3], customer, (taken - units) .. ':' .. last)
      end
    end
    released = released + 1
  end
end
if none_left and released > 0 then
  -- Processes may go on saying that there is none, for as long as claim.lua waits (its REPEATED).
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'back_at', time[1] * 1000 + math.floor(time[2] / 1000))
end
return released
