-- Lua calls realloc and free for everything: strings, tables, closures, coroutines.
local scale = tonumber(arg[1])
local state = 42
local function random(limit)
  state = (state * 1103515245 + 12345) % 2147483648
  return (state // 65536) % limit + 1
end
local function digest(text)
  local sum = 5381
  for i = 1, #text do sum = (sum * 33 + text:byte(i)) & 0xffffffffffff end
  return string.format("%x %d", sum, #text)
end

local items, removed = {}, 0
for i = 1, 300000 * scale do
  items[#items + 1] = ("x"):rep(random(300)) .. i
  if #items > 2000 then
    local at = random(#items)
    removed = removed + #items[at]
    items[at] = items[#items]
    items[#items] = nil
  end
end
print("strings", removed, digest(table.concat(items)))
table.sort(items)
print("sort", digest(table.concat(items, "", 1, 500)))
for size = 1, 200 do
  local grown = {}
  for i = 1, size * 100 do grown[i] = i end
  removed = removed + #grown
end
print("tables", removed)
local text = table.concat(items, " ")
print("patterns", select(2, text:gsub("x(%d)", "%1x")), digest(text:gsub("(x+)(%d+)", "%2%1")))
local threads = {}
for i = 1, 5000 do
  threads[i] = coroutine.create(function(n)
    while true do n = coroutine.yield(n * 2) end
  end)
end
local total = 0
for turn = 1, 5 do
  for i = 1, #threads do total = total + select(2, coroutine.resume(threads[i], i + turn)) end
end
print("coroutines", total)
threads = nil
collectgarbage()
local tree
local function insert(node, value)
  if not node then return { value = value } end
  if value < node.value then node.left = insert(node.left, value) else node.right = insert(node.right, value) end
  return node
end
for _ = 1, 50000 do tree = insert(tree, random(1000000)) end
local function depth(node) return node and 1 + math.max(depth(node.left), depth(node.right)) or 0 end
print("tree", depth(tree))
collectgarbage("generational")
for i = 1, 100000 do items[i % 1000 + 1] = { i, tostring(i) } end
print("generational", #items, items[7][2])
