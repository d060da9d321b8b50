-- Tables, strings and closures: what a script does all day. @SCALE@ divides the rounds.
local scale = @SCALE@
local seed = 12345
local function random(limit)
  seed = (seed * 1103515245 + 12345) % 2147483648
  return seed // 8 % limit + 1
end

local function words(count)
  local list = {}
  for i = 1, count do list[i] = string.format("%x", random(5000) * 7919) .. ("ab"):rep(random(6)) end
  return list
end

local function count_words(list)
  local counts = {}
  for _, word in ipairs(list) do
    for part in word:gmatch("%w+") do counts[part] = (counts[part] or 0) + 1 end
  end
  return counts
end

local function list_of_closures(count)
  local steps = {}
  for i = 1, count do
    local state = { value = i }
    steps[i] = function(x) state.value = (state.value + x) % 65521; return state.value end
  end
  local sum = 0
  for round = 1, 3 do for i = 1, count do sum = (sum + steps[i](round)) % 1000003 end end
  return sum
end

local function tree(depth)
  if depth == 0 then return { value = random(9) } end
  return { left = tree(depth - 1), right = tree(depth - 1), value = depth }
end
local function walk(node) return node.value + (node.left and walk(node.left) + walk(node.right) or 0) end

local total, kept = 0, {}
for round = 1, 24 // scale do
  local list = words(8000)
  local text = table.concat(list, " ")
  local counts = count_words({ text })
  local keys = {}
  for key in pairs(counts) do keys[#keys + 1] = key end
  table.sort(keys)
  total = (total + #text + #keys + counts[keys[1]]) % 1000000007
  total = (total + #text:gsub("a", "xyz"):upper() + list_of_closures(6000)) % 1000000007
  total = (total + walk(tree(11))) % 1000000007
  kept[round % 6] = { list = list, text = text:sub(1, random(#text)) }
end
print(total, #kept)
