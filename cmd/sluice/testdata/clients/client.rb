# What an application does with redis-rb. Usage: client.rb HOST PORT
require "redis"

def same(want, got, what)
  abort "#{what}: got #{got.inspect}, want #{want.inspect}" unless want == got
end

host, port = ARGV
r = Redis.new(host: host, port: port.to_i, id: "app", timeout: 20)
other = Redis.new(host: host, port: port.to_i, timeout: 20)
200.times do |i| # a read sees the write before it
  r.set("rb:k", i)
  same i.to_s, r.get("rb:k"), "get"
end
r.mapped_hmset("rb:h", "a" => "1", "b" => "2")
same({ "a" => "1", "b" => "2" }, r.hgetall("rb:h"), "hgetall")
same ["OK", 2, "2"], r.multi { |m| m.set("rb:n", 1); m.incr("rb:n"); m.get("rb:n") }, "multi"
got = r.pipelined { |p| 300.times { |i| p.set("rb:#{i}", i); p.get("rb:#{i}") } }
same (0...300).map(&:to_s), got.each_slice(2).map(&:last), "pipeline"

lost = r.watch("rb:n") do
  other.incr("rb:n")
  r.multi { |m| m.incr("rb:n") }
end
same nil, lost, "exec behind a changed key"
same "3", r.get("rb:n"), "watched key"

popper = Thread.new { Redis.new(host: host, port: port.to_i, timeout: 20).blpop("rb:q", timeout: 20) }
r.rpush("rb:q", "x")
same %w[rb:q x], popper.value, "blpop"

same 7, r.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", keys: ["rb:s"], argv: [7]), "eval"
sha = r.script(:load, "return ARGV[1]")
same "y", r.evalsha(sha, argv: ["y"]), "evalsha"
same 111, r.scan_each(match: "rb:1*", count: 11).to_a.uniq.length, "scan"
r.select(4)
same nil, r.get("rb:k"), "another database"
r.select(0)
begin
  r.lpush("rb:k", "x")
  abort "LPUSH on a string did not fail"
rescue Redis::CommandError => e
  same true, e.message.start_with?("WRONGTYPE"), "its error"
end

got = []
sub = Redis.new(host: host, port: port.to_i, timeout: 20)
sub.subscribe("rb:c") do |on|
  on.subscribe { |_, _| r.publish("rb:c", "one") }
  on.message { |_, m| got << m; sub.unsubscribe }
end
same ["one"], got, "messages"
same "x", sub.set("rb:after", "x") && "x", "a command after the last UNSUBSCRIBE"
puts "ok"
