"""What an application does with redis-py. Usage: client.py HOST PORT"""
import sys
import threading

import redis

host, port = sys.argv[1], int(sys.argv[2])
r = redis.Redis(host=host, port=port, decode_responses=True, client_name="app", health_check_interval=1)

for i in range(200):  # a read sees the write before it
    r.set("py:k", i)
    assert r.get("py:k") == str(i)
r.hset("py:h", mapping={"a": "1", "b": "2"})
assert r.hgetall("py:h") == {"a": "1", "b": "2"}
assert r.client_getname() == "app"

with r.pipeline(transaction=True) as p:
    assert p.set("py:n", 1).incr("py:n").get("py:n").execute() == [True, 2, "2"]
with r.pipeline(transaction=False) as p:
    for i in range(500):
        p.set(f"py:{i}", i)
        p.get(f"py:{i}")
    assert p.execute()[1::2] == [str(i) for i in range(500)]

with r.pipeline() as p:  # optimistic locking: a change in between is noticed
    p.watch("py:n")
    n = int(p.get("py:n"))
    r.incr("py:n")
    p.multi()
    p.set("py:n", n + 10)
    try:
        p.execute()
        sys.exit("a watched key changed and EXEC ran")
    except redis.WatchError:
        pass
assert r.transaction(lambda p: (p.get("py:n"), p.multi(), p.incr("py:n")), "py:n") == [4]

sub = r.pubsub(ignore_subscribe_messages=True)
sub.subscribe("py:c")
sub.psubscribe("py:p*")
while r.pubsub_numsub("py:c")[0][1] == 0 or r.pubsub_numpat() == 0:
    pass
r.publish("py:c", "one")
r.publish("py:pat", "two")
got = []
while len(got) < 2:
    m = sub.get_message(timeout=10)
    if m:
        got.append(m["data"])
assert got == ["one", "two"], got
sub.close()

popped = []
t = threading.Thread(target=lambda: popped.append(r.blpop("py:q", timeout=20)))
t.start()
r.rpush("py:q", "x")
t.join(30)
assert popped == [("py:q", "x")], popped

script = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
assert script(keys=["py:s"], args=[5]) == 5
assert script(keys=["py:s"], args=[5]) == 10
r.script_flush()
assert script(keys=["py:s"], args=[5]) == 15  # NOSCRIPT, then loaded again
assert sorted(r.scan_iter("py:1*", count=7)) == sorted(f"py:{i}" for i in range(500) if str(i)[0] == "1")
other = redis.Redis(host=host, port=port, db=3, decode_responses=True)
assert other.get("py:k") is None and other.set("py:k", "db3") and r.get("py:k") == "199"
try:
    r.lpush("py:k", 1)
    sys.exit("LPUSH on a string did not fail")
except redis.ResponseError as e:
    assert str(e).startswith("WRONGTYPE"), e
with r.lock("py:lock", timeout=10):
    assert not r.lock("py:lock", timeout=10).acquire(blocking=False)
print("ok")
