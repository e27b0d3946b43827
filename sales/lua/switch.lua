-- switch.lua: opens, pauses or closes the gate. When it has returned, no claim decided later
-- sees the old state (I7).
--
-- KEYS[1] gate
-- ARGV[1] epoch  ARGV[2] state: open | paused | closed
--
-- Reply: switched
--        stale     the gate is gone or of another epoch; nothing was written

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 'stale' end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
return 'switched'
