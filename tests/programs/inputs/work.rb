# Strings, hashes, sort, threads, fork, a compacting collection.
require 'digest'
require 'json'

scale = Integer(ARGV[0])

def digest(text) = Digest::SHA256.hexdigest(text)[0, 16]

def churn(seed, turns)
  rng = Random.new(seed)
  table = {}
  items = []
  removed = 0
  turns.times do |i|
    table["key#{rng.rand(3000)}"] = 'v' * rng.rand(500)
    items << ('x' * rng.rand(2000) + i.to_s)
    removed += items.delete_at(rng.rand(items.size)).size if items.size > 800
  end
  [table.size, removed, digest(table.sort.flatten.join)].join(' ')
end

puts "churn #{churn(1, 50_000 * scale)}"
lines = Array.new(20_000) { |i| ((i * 7919) % 20_011).to_s * (i % 9 + 1) }
puts "sort #{digest(lines.sort.join)} #{digest(lines.sort_by { |line| [line.size, line] }.join)}"
text = lines.join(' ')
puts "gsub #{digest(text.gsub(/(\d)(\d)/, '\2\1'))} #{text.scan(/\b7\d+/).size}"
data = Array.new(10_000) { |i| { 'id' => i, 'name' => 'é' * (i % 30), 'list' => [i, nil, i / 3.0] } }
puts "json #{digest(JSON.generate(data))} #{JSON.parse(JSON.generate(data)) == data} #{Marshal.load(Marshal.dump(data)) == data}"
puts "big #{digest((3**20_000).to_s)}"
puts "threads #{(1..5).map { |n| Thread.new { churn(n, 4000) } }.map(&:value).join(' | ')}"
puts "fibers #{Array.new(500) { |i| Fiber.new { |n| Fiber.yield(n * 2) + i } }.sum { |fiber| fiber.resume(4) + fiber.resume(1) }}"
4.times do |n|
  reader, writer = IO.pipe
  pid = fork do
    reader.close
    writer.write(churn(n, 2000))
    writer.close
    exit!(n)
  end
  writer.close
  puts "child #{reader.read} #{Process.wait2(pid)[1].exitstatus}"
end
puts "shell #{`echo from a shell`}"
GC.compact if GC.respond_to?(:compact)
puts "after #{churn(9, 5000)}"
