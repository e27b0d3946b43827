-- The same decision and the three calls around it, in one round trip.
--
-- KEYS[1] second  attempts in this second
-- KEYS[2] known   the order that this Idempotency-Key has already been granted
-- KEYS[3] stock   units left of the sale
-- KEYS[4] bought  hash: customer -> units
-- ARGV            customer, quantity, limit per customer, attempts admitted per second, order id
-- Reply: 1 taken, 0 sold out, -1 above the limit, -2 too many attempts; an order id: known already

local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], 5) end
if count > tonumber(ARGV[4]) then return -2 end
local known = redis.call('GET', KEYS[2])
if known then return known end
local quantity = tonumber(ARGV[2])
local bought = tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or '0')
if bought + quantity > tonumber(ARGV[3]) then return -1 end
if tonumber(redis.call('GET', KEYS[3]) or '0') < quantity then return 0 end
redis.call('DECRBY', KEYS[3], quantity)
redis.call('HINCRBY', KEYS[4], ARGV[1], quantity)
redis.call('SET', KEYS[2], ARGV[5], 'EX', 86400)
return 1
