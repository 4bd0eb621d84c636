<?php
// What an application does with phpredis. Usage: client.php HOST PORT
[, $host, $port] = $argv;

function same($want, $got, string $what): void
{
    if ($want !== $got) {
        fwrite(STDERR, "$what: got " . var_export($got, true) . ", want " . var_export($want, true) . "\n");
        exit(1);
    }
}

$r = new Redis();
$r->connect($host, (int) $port, 5.0, null, 0, 30);
for ($i = 0; $i < 200; $i++) { // a read sees the write before it
    $r->set('php:k', (string) $i);
    same((string) $i, $r->get('php:k'), 'get');
}
$r->hMSet('php:h', ['a' => '1', 'b' => '2']);
same(['a' => '1', 'b' => '2'], $r->hGetAll('php:h'), 'hgetall');
same([true, 2, '2'], $r->multi()->set('php:n', '1')->incr('php:n')->get('php:n')->exec(), 'multi');
$p = $r->pipeline();
for ($i = 0; $i < 300; $i++) {
    $p->set("php:$i", (string) $i)->get("php:$i");
}
$got = $p->exec();
same('299', $got[599], 'pipeline');
same(600, count($got), 'pipeline length');

$other = new Redis();
$other->pconnect($host, (int) $port, 5.0);
$r->watch('php:n');
$other->incr('php:n');
same(false, $r->multi()->incr('php:n')->exec(), 'exec behind a changed key');
same('3', $r->get('php:n'), 'watched key');

$r->rPush('php:q', 'x');
same(['php:q', 'x'], $r->blPop(['php:q'], 5), 'blpop');
same([], $r->blPop(['php:q'], 1), 'blpop that times out');

same(7, $r->eval('return redis.call("INCRBY", KEYS[1], ARGV[1])', ['php:s', 7], 1), 'eval');
$sha = $r->script('load', 'return ARGV[1]');
same('y', $r->evalSha($sha, ['y'], 0), 'evalsha');

$it = null;
$n = 0;
$r->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
while ($keys = $r->scan($it, 'php:1*', 11)) {
    $n += count($keys);
}
same(111, $n, 'scan');

$r->select(4);
same(false, $r->get('php:k'), 'another database');
$r->select(0);
same(false, @$r->lPush('php:k', 'x'), 'wrong type');
same(true, str_starts_with((string) $r->getLastError(), 'WRONGTYPE'), 'its error');

// Another process publishes until somebody has heard it.
$code = '$r = new Redis(); $r->connect($argv[1], (int) $argv[2]); while ($r->publish("php:c", "hello") < 1) { usleep(10000); }';
$publisher = popen(implode(' ', array_map('escapeshellarg', [PHP_BINARY, '-r', $code, $host, $port])), 'r');
// phpredis leaves its loop only by an error: here that of nothing to read.
$heard = [];
try {
    $r->subscribe(['php:c'], function ($redis, $channel, $message) use (&$heard) {
        $heard[] = $message;
        $redis->setOption(Redis::OPT_READ_TIMEOUT, 1);
    });
} catch (RedisException) {
}
same(['hello'], $heard, 'messages');
pclose($publisher);
echo "ok\n";
