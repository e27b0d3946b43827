#!lua flags=allow-oom
-- switch.lua: opens, pauses or closes the gate. When it has returned, no claim decided later
-- sees the old state (I7).
--
-- KEYS[1] gate
-- ARGV[1] epoch, or "" for a stop: whichever gate stands must not sell
-- ARGV[2] state: armed | open | paused | closed
-- ARGV[3] the turn seen before the decision, or "" for a stop, which asks nobody
-- ARGV[4] "arming" from the arming that has built this gate and now switches it on, else ""
--
-- Reply: switched
--        stale     the gate is gone or of another epoch; nothing was written
--        arming    the gate is being armed (or no longer is); the turn has moved on all the same
--        closed    it is closed already, and that is for good; nothing was written
--        turned    somebody has switched it since that turn; nothing was written
--
-- Each switch is a turn. Without it an operator who opens could overtake one who closes, and the
-- gate would sell after `close` has returned. An arming that is told "turned" asks the database
-- again what the sale's state is.

local gate = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'turn')
if not gate[1] or (ARGV[1] ~= '' and gate[1] ~= ARGV[1]) then return 'stale' end
if (gate[2] == 'arming') ~= (ARGV[4] == 'arming') then
  redis.call('HINCRBY', KEYS[1], 'turn', 1)
  return 'arming'
end
if gate[2] == 'closed' and ARGV[2] ~= 'closed' then return 'closed' end
if ARGV[3] ~= '' and gate[3] ~= ARGV[3] then return 'turned' end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'turn', 1)
return 'switched'
