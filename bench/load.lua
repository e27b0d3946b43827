-- What wrk sends: one order after the other, each with a key of its own, from the buyers in turn.
--
-- wrk ... -s load.lua URL -- <file of buyers> <sales, comma separated> <prefix of keys> <ours|reference>
-- A line of the file is a customer and, for our side, a token. At the end one line of JSON is printed.

local heads, tail, prefix, turn, sent = {}, {}, nil, 0, 0

local function body(form, customer)
  if form == 'ours' then return '{"quantity":1}' end
  return '{"user_id":"' .. customer .. '","quantity":1}'
end

function init(args)
  local file, names, form = args[1], args[2], args[4]
  prefix = args[3]
  local sales = {}
  for name in names:gmatch('[^,]+') do sales[#sales + 1] = name end
  -- Each buyer's request is made now, to one of the sales: at run time a key is put in its middle.
  for line in io.lines(file) do
    local customer, token = line:match('^(%S+)%s*(%S*)$')
    local content = body(form, customer)
    local lines = {
      'POST /api/v1/sales/' .. sales[#heads % #sales + 1] .. '/orders HTTP/1.1',
      'Host: 127.0.0.1',
      'User-Agent: bench',
      'Accept: */*',
      'Content-Type: application/json',
      'Content-Length: ' .. #content,
    }
    if token ~= '' then lines[#lines + 1] = 'Authorization: Bearer ' .. token end
    heads[#heads + 1] = table.concat(lines, '\r\n') .. '\r\nIdempotency-Key: ' .. prefix
    tail[#tail + 1] = '\r\n\r\n' .. content
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
