-- arm.lua: builds the gate of one pool, empty of claims and not yet open.
--
-- KEYS[1] gate  KEYS[2] claims  KEYS[3] customers  KEYS[4] pending   (as in claim.lua)
-- ARGV[1] epoch, ARGV[2] units loaded, ARGV[3] burst, then field, value, field, value ... of the gate:
--         opens_at, closes_at (ms), limit (units per customer), rate (attempts per second),
--         admission_required ("0" or "1")
--
-- Reply: armed   the gate stands, in state "armed"
--        stale   a gate of this or a later epoch stands already; nothing was written

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) >= tonumber(ARGV[1]) then return 'stale' end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', 'armed', 'turn', 0,
  'loaded', ARGV[2], 'remaining', ARGV[2], 'held', 0, 'queued', 0, 'settled', 0, 'released', 0,
  'burst', ARGV[3], 'tokens', ARGV[3], 'tokens_at', 0, unpack(ARGV, 4))
return 'armed'
