local unreserved = {}
for code = 33, 126 do
  local char = string.char(code)
  if char:match("[%w%-._~]") then
    unreserved[("%%%02X"):format(code)] = char
    unreserved[("%%%02x"):format(code)] = char
  end
end

local function without_dot_segments(path)
  local kept, last = {}, ""
  for segment in path:gmatch("/([^/]*)") do
    last = segment
    if segment == ".." then
      table.remove(kept)
    elseif segment ~= "." then
      table.insert(kept, segment)
    end
  end
  if last == "." or last == ".." then
    table.insert(kept, "")
  end
  return "/" .. table.concat(kept, "/")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path, query = headers:get(":path"):match("^([^?]*)(.*)$")
  path = path:gsub("\\", "/"):gsub("%%%x%x", unreserved)
  if path:find("/.", 1, true) then
    path = without_dot_segments(path)
  end
  if (headers:get("content-type") or ""):find("^application/grpc") then
    path = path .. query
  end
  headers:replace(":path", path)
  headers:replace("x-nimbus-prepared", "1")
  handle:clearRouteCache()
end
