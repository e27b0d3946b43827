#!lua flags=allow-oom
-- fence.lua: shuts the gate of a pool for an arming that has begun. What it holds stays readable:
-- claims that are still held are appended to the log before the barrier.
--
-- KEYS[1] gate
-- ARGV[1] epoch of the arming
--
-- Reply: fenced   nothing is claimed any more; older armings cannot build their gate either
--        stale    a later arming has been here; nothing was written

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return 'stale' end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', 'arming')
redis.call('HINCRBY', KEYS[1], 'turn', 1)
return 'fenced'
