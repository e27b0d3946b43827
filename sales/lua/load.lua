-- load.lua: puts what the order book has into a gate that is being armed, so that every key
-- replays and every customer's units count, as before.
--
-- KEYS[1] gate  KEYS[2] claims  KEYS[3] customers
-- ARGV[1] epoch, then six per order: order id, letter (s settled | r released), quantity,
--         claimed_at ms, epoch of its claim, customer
--
-- Reply: loaded   repeating an order changes nothing
--        stale    the gate is gone, of another epoch, or in use already; nothing was written

local gate = redis.call('HMGET', KEYS[1], 'epoch', 'state')
if gate[1] ~= ARGV[1] or gate[2] ~= 'arming' then return 'stale' end
for i = 2, #ARGV, 6 do
  local id, letter, units, claimed_at, epoch, customer = unpack(ARGV, i, i + 5)
  local claim = letter .. units .. ':' .. claimed_at .. ':' .. epoch .. ':' .. customer
  if redis.call('HSETNX', KEYS[2], id, claim) == 1 then
    if letter == 's' then
      redis.call('HINCRBY', KEYS[1], 'remaining', -units)
      redis.call('HINCRBY', KEYS[1], 'settled', units)
      local taken = string.match(redis.call('HGET', KEYS[3], customer) or '0:', '^(%d+):')
      redis.call('HSET', KEYS[3], customer, string.format('%d', taken + units) .. ':' .. id)
    else
      redis.call('HINCRBY', KEYS[1], 'released', units)
    end
  end
end
return 'loaded'
