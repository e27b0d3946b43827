-- arm.lua: builds the gate of one pool, empty of claims. It stays in state "arming", in which
-- nothing is claimed, until its claims are loaded (load.lua) and it is switched on (switch.lua).
--
-- KEYS[1] gate  KEYS[2] claims  KEYS[3] customers  KEYS[4] pending   (as in claim.lua)
-- ARGV[1] epoch, ARGV[2] units loaded, ARGV[3] burst, then field, value, field, value ... of the gate:
--         opens_at, closes_at (ms), limit (units per customer), rate (attempts per second),
--         admission_required ("0" or "1")
--
-- Reply: armed   the gate stands
--        stale   a gate of a later epoch stands, or one of this epoch that is in use already;
--                nothing was written

local gate = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'turn')
if gate[1] then
  local epoch, mine = tonumber(gate[1]), tonumber(ARGV[1])
  if epoch > mine or (epoch == mine and gate[2] ~= 'arming') then return 'stale' end
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
-- The turns go on counting: who has seen an earlier one must not take this gate for that one.
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', 'arming', 'turn', (gate[3] or 0) + 1,
  'loaded', ARGV[2], 'remaining', ARGV[2], 'held', 0, 'queued', 0, 'settled', 0, 'released', 0,
  'burst', ARGV[3], 'tokens', ARGV[3], 'tokens_at', 0, unpack(ARGV, 4))
return 'armed'
