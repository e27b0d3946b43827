-- One order as the original design decides it: take stock, if the customer may have so many.
--
-- KEYS[1] stock   units left of the sale
-- KEYS[2] bought  hash: customer -> units
-- ARGV            customer, quantity, limit per customer
-- Reply: 1 taken, 0 sold out, -1 above the limit

local quantity = tonumber(ARGV[2])
local bought = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if bought + quantity > tonumber(ARGV[3]) then return -1 end
if tonumber(redis.call('GET', KEYS[1]) or '0') < quantity then return 0 end
redis.call('DECRBY', KEYS[1], quantity)
redis.call('HINCRBY', KEYS[2], ARGV[1], quantity)
return 1
