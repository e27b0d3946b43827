#!lua flags=allow-oom
-- settle.lua: moves claims forward: held -> queued (the log has acknowledged them) or
-- held | queued -> settled (the order book has them). Never back, so it may be repeated.
--
-- KEYS[1] gate  KEYS[2] claims  KEYS[3] pending
-- ARGV[1] epoch of the claims, or "" for whichever  ARGV[2] target letter: q | s
-- ARGV[3...] order ids
--
-- Reply: how many claims moved. Claims the gate does not know, or knows from another epoch, are
-- passed over.
--
-- An acknowledgement is of one claim: after a rearming the same key may have been granted anew,
-- and that claim is not in the log yet. A row of the order book is final for its id, whenever it
-- was claimed, so settling names no epoch.

local names = { h = 'held', q = 'queued', s = 'settled' }
local order = { h = 1, q = 2, s = 3 }
local epoch, target, moved = ARGV[1], ARGV[2], 0
for i = 3, #ARGV do
  local claim = redis.call('HGET', KEYS[2], ARGV[i])
  local letter, units, of = string.match(claim or '', '^(%a)(%d+):%d+:(%d+):')
  if letter and order[letter] and order[letter] < order[target] and (epoch == '' or of == epoch) then
    redis.call('HSET', KEYS[2], ARGV[i], target .. string.sub(claim, 2))
    redis.call('HINCRBY', KEYS[1], names[letter], -units)
    redis.call('HINCRBY', KEYS[1], names[target], units)
    redis.call('ZREM', KEYS[3], ARGV[i])
    moved = moved + 1
  end
end
return moved
