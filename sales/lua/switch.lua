#!lua flags=allow-oom
-- switch.lua: opens, pauses or closes the gate. When it has returned, no claim decided later
-- sees the old state (I7).
--
-- KEYS[1] gate
-- ARGV[1] epoch  ARGV[2] state: open | paused | closed
-- ARGV[3] the turn seen before the decision, or "" for a stop, which asks nobody
--
-- Reply: switched
--        stale     the gate is gone or of another epoch; nothing was written
--        closed    it is closed already, and that is for good; nothing was written
--        turned    somebody has switched it since that turn; nothing was written
--
-- Each switch is a turn. Without it an operator who opens could overtake one who closes, and the
-- gate would sell after `close` has returned.

local gate = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'turn')
if gate[1] ~= ARGV[1] then return 'stale' end
if gate[2] == 'closed' and ARGV[2] ~= 'closed' then return 'closed' end
if ARGV[3] ~= '' and gate[3] ~= ARGV[3] then return 'turned' end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'turn', 1)
return 'switched'
