-- What wrk sends: one request after the other, from the buyers in turn. Orders have a key of their own each.
--
-- wrk ... -s load.lua URL -- <file of buyers> <sales, comma separated> <prefix of keys> <form>
-- Forms: ours and reference (orders); line (the line document); tickets (a place in line for each buyer of
-- the file, and the end after the last one) and again (a ticket that is shown again, over and over).
-- A line of the file is a customer, for our side a token, and for `again` a ticket. At the end one line of
-- JSON is printed.

local heads, tail, prefix, turn, sent = {}, {}, nil, 0, 0
local PATHS = { ours = 'orders', reference = 'orders', line = 'line', tickets = 'tickets', again = 'tickets' }

local function body(form, customer, ticket)
  if form == 'ours' then return '{"quantity":1}' end
  if form == 'tickets' then return '{}' end
  if form == 'again' then return '{"ticket":"' .. ticket .. '"}' end
  return '{"user_id":"' .. customer .. '","quantity":1}'
end

-- Without keys.
local function next_whole()
  turn = turn % #heads + 1
  return heads[turn]
end

local function next_new()
  if turn == #heads then wrk.thread:stop() end -- whoever is asked again now is not heard any more
  return next_whole()
end

function init(args)
  local file, names, form = args[1], args[2], args[4]
  prefix = args[3]
  local sales = {}
  for name in names:gmatch('[^,]+') do sales[#sales + 1] = name end
  -- Each buyer's request is made now, to one of the sales: at run time a key is put in its middle.
  for line in io.lines(file) do
    local customer, token, ticket = line:match('^(%S+)%s*(%S*)%s*(%S*)$')
    local path = ' /api/v1/sales/' .. sales[#heads % #sales + 1] .. '/' .. PATHS[form] .. ' HTTP/1.1'
    local lines = { 'POST' .. path, 'Host: 127.0.0.1', 'User-Agent: bench', 'Accept: */*' }
    local content = ''
    if form == 'line' then
      lines[1] = 'GET' .. path
    else
      content = body(form, customer, ticket)
      lines[#lines + 1] = 'Content-Type: application/json'
      lines[#lines + 1] = 'Content-Length: ' .. #content
      if token ~= '' then lines[#lines + 1] = 'Authorization: Bearer ' .. token end
    end
    local head = table.concat(lines, '\r\n')
    if PATHS[form] == 'orders' then
      heads[#heads + 1] = head .. '\r\nIdempotency-Key: ' .. prefix
      tail[#tail + 1] = '\r\n\r\n' .. content
    else
      heads[#heads + 1] = head .. '\r\n\r\n' .. content
    end
  end
  if form == 'tickets' then
    request = next_new
  elseif PATHS[form] ~= 'orders' then
    request = next_whole
  end
end

function request()
  turn = turn % #heads + 1
  sent = sent + 1
  return heads[turn] .. sent .. tail[turn]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'FIGURES {"requests":%d,"microseconds":%d,"p50":%d,"p95":%d,"p99":%d,"most":%d,'
      .. '"refused":%d,"broken":%d,"late":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    latency.max, e.status, e.connect + e.read + e.write, e.timeout))
end
