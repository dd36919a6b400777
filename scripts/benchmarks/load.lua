-- What wrk sends and how it reports: every body of a folder in turn, and one line of JSON at the end.
-- wrk … URL -- FOLDER COUNT NAME VALUE …: POSTs FOLDER/1 … FOLDER/COUNT with these headers; without arguments it GETs.

local prepared, at = {}, 0

function init(args)
  local count, headers = tonumber(args[2] or 0), {}
  for index = 3, #args, 2 do headers[args[index]] = args[index + 1] end
  for number = 1, count do
    local file = assert(io.open(args[1] .. "/" .. number, "rb"))
    prepared[number] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
  if count == 0 then prepared[1] = wrk.format("GET") end
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d, "max_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, latency.max / 1e3
  ))
end
