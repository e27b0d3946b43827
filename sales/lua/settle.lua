#!lua flags=allow-oom
-- settle.lua: moves claims forward: held -> queued (the log has acknowledged them) or
-- held | queued -> settled (the order book has them). Never back, so it may be repeated.
--
-- KEYS[1] gate  KEYS[2] claims  KEYS[3] pending
-- ARGV[1] epoch  ARGV[2] target letter: q | s  ARGV[3...] order ids
--
-- Reply: how many claims moved. Claims the gate does not know are passed over, and so is
-- everything when the gate is gone or of another epoch.

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
local names = { h = 'held', q = 'queued', s = 'settled' }
local order = { h = 1, q = 2, s = 3 }
local target, moved = ARGV[2], 0
for i = 3, #ARGV do
  local claim = redis.call('HGET', KEYS[2], ARGV[i])
  local letter = claim and string.sub(claim, 1, 1)
  if letter and order[letter] and order[letter] < order[target] then
    local units = string.match(claim, '^%a(%d+):')
    redis.call('HSET', KEYS[2], ARGV[i], target .. string.sub(claim, 2))
    redis.call('HINCRBY', KEYS[1], names[letter], -units)
    redis.call('HINCRBY', KEYS[1], names[target], units)
    redis.call('ZREM', KEYS[3], ARGV[i])
    moved = moved + 1
  end
end
return moved
