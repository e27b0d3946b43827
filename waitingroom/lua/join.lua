-- join.lua: hands out the numbers of a line, one to a customer, and freezes the entries of its draw.
--
-- KEYS[1] line     hash: image (JSON), opens_at (ms), next (number to be handed out), entries
-- KEYS[2] tickets  hash: a customer's tag -> number
-- ARGV             four per customer: tag, number whose turn was missed or "", lowest number to hand out,
--                  number of a signed ticket that was shown or ""; none at all: only freezes
--
-- Reply: now ms, entries of the draw ("" before the opening), then a number per customer
--        nothing at all when the line is not known here: it is published anew within a second
--
-- A ticket that is shown counts only where Redis has lost the customer's number.

local line = redis.call('HMGET', KEYS[1], 'next', 'opens_at', 'entries')
if not line[1] then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local following, entries = tonumber(line[1]), line[3]
-- Whoever asks first at or after the opening freezes: the numbers before this one are in the draw.
if not entries and now >= tonumber(line[2]) then
  entries = following
  redis.call('HSET', KEYS[1], 'entries', entries)
end
-- A replica that lagged may have kept the one and not the other: nobody joins a draw that is made.
if entries then following = math.max(following, tonumber(entries)) end

local reply = { now, entries or '' }
for i = 1, #ARGV, 4 do
  local tag, missed, lowest, shown = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local number = redis.call('HGET', KEYS[2], tag)
  if not number and shown ~= '' then
    number = shown
    redis.call('HSET', KEYS[2], tag, shown)
    following = math.max(following, tonumber(shown) + 1)
  elseif not number or number == missed then
    number = math.max(following, lowest)
    redis.call('HSET', KEYS[2], tag, number)
    following = number + 1
  end
  reply[#reply + 1] = tonumber(number)
end
-- Most who ask have their number already: nothing is written for them.
if following ~= tonumber(line[1]) then redis.call('HSET', KEYS[1], 'next', following) end
return reply
