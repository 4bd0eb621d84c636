package rdbstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/rdbstream"
	"github.com/sluice-io/sluice/resp/localredis"
)

// databases are those that fill fills.
var databases = []int{0, 1, 9}

// noise returns n bytes that do not compress, always the same.
func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return string(b)
}

// fill makes keys of every type in every form that the server has, under names
// with prefix.
func fill(t *testing.T, s server, rdb *redis.Client, prefix string) {
	t.Helper()
	set := func(name, value string) { doArgs(t, rdb, "SET", prefix+name, value) }
	for _, n := range []string{"0", "-1", "127", "-128", "128", "-32768", "32768", "2147483647", "-2147483649", "9223372036854775807"} {
		set("int"+n, n)
	}
	set("empty", "")
	set("short", "short")
	set("text", strings.Repeat("compressible ", 100))
	set("noise", noise(5000))
	set("big", strings.Repeat("0123456789abcdef", 1<<16))
	set(strings.Repeat("a long name that compresses ", 20), "v")
	set(noise(300), "binary name")
	doArgs(t, rdb, "SET", strconv.Itoa(len(prefix)), "name that is a number")
	doArgs(t, rdb, "SET", "-"+strconv.Itoa(70000+len(prefix)), "name that is a number")
	doArgs(t, rdb, "PFADD", prefix+"hll", "a", "b", "c")
	doArgs(t, rdb, "SETBIT", prefix+"bits", 100000, 1)
	doArgs(t, rdb, "GEOADD", prefix+"geo", 13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")
	for _, size := range []struct {
		name string
		n    int
	}{{"small", 5}, {"large", 3000}} {
		fillCollections(t, rdb, prefix+size.name, size.n)
	}
	doArgs(t, rdb, "RPUSH", prefix+"list-plain", noise(9000), "small", noise(20000), "x", strings.Repeat("z", 100000))
	doArgs(t, rdb, "SADD", prefix+"intset", 1, -70000, 1<<40)
	doArgs(t, rdb, "ZADD", prefix+"zset-inf", "inf", "a", "-inf", "b", "1.5", "c", "1e300", "d", "-0.1", "e")
	fillStreams(t, rdb, prefix)
	if s.AtLeast(7, 4) || s.Valkey && s.Major >= 9 {
		for _, n := range []int{5, 1000} {
			key := fmt.Sprintf("%shash-ttl-%d", prefix, n)
			for i := range n {
				doArgs(t, rdb, "HSET", key, "f"+strconv.Itoa(i), "v"+strconv.Itoa(i))
			}
			doArgs(t, rdb, "HEXPIRE", key, 100000, "FIELDS", 2, "f1", "f2")
			doArgs(t, rdb, "HPEXPIREAT", key, 4_000_000_000_123, "FIELDS", 1, "f3")
		}
	}
	for i, key := range []string{"short", "big", "smallhash", "largezset", "stream"} {
		doArgs(t, rdb, "PEXPIREAT", prefix+key, 4_000_000_000_000+int64(i))
	}
}

// fillCollections makes one of each collection with n elements.
func fillCollections(t *testing.T, rdb *redis.Client, prefix string, n int) {
	t.Helper()
	pipe := rdb.Pipeline()
	ctx := context.Background()
	for i := range n {
		e := fmt.Sprintf("element %d", i)
		pipe.RPush(ctx, prefix+"list", e, i, noise(i%60))
		pipe.SAdd(ctx, prefix+"set", e)
		pipe.SAdd(ctx, prefix+"numbers", i*i*i)
		pipe.ZAdd(ctx, prefix+"zset", redis.Z{Score: float64(i) / 7, Member: e})
		pipe.HSet(ctx, prefix+"hash", e, strings.Repeat("v", i%100))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
}

// fillStreams makes streams with and without groups, consumers and pending
// entries.
func fillStreams(t *testing.T, rdb *redis.Client, prefix string) {
	t.Helper()
	ctx := context.Background()
	pipe := rdb.Pipeline()
	for i := range 500 {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: prefix + "stream", ID: fmt.Sprintf("%d-%d", 1000+i/3, i%3+1), Values: []any{"f", i, "g", "text"}})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	doArgs(t, rdb, "XGROUP", "CREATE", prefix+"stream", "g1", "0")
	doArgs(t, rdb, "XGROUP", "CREATE", prefix+"stream", "g2", "$")
	doArgs(t, rdb, "XREADGROUP", "GROUP", "g1", "alice", "COUNT", 100, "STREAMS", prefix+"stream", ">")
	doArgs(t, rdb, "XREADGROUP", "GROUP", "g1", "bob", "COUNT", 20, "STREAMS", prefix+"stream", ">")
	doArgs(t, rdb, "XACK", prefix+"stream", "g1", "1000-1", "1000-2")
	doArgs(t, rdb, "XDEL", prefix+"stream", "1005-1", "1000-1")
	doArgs(t, rdb, "XGROUP", "CREATE", prefix+"stream-empty", "g", "$", "MKSTREAM")
	doArgs(t, rdb, "XADD", prefix+"stream-trimmed", "MAXLEN", 0, "5-5", "a", "b")
}

// fillAll fills all databases, once with the defaults and once with thresholds
// that forbid the packed forms.
func fillAll(t *testing.T, s server, p *localredis.Server) {
	t.Helper()
	for i, db := range databases {
		rdb := client(t, p, db)
		fill(t, s, rdb, fmt.Sprintf("db%d:", db))
		if i != 1 {
			continue
		}
		for _, set := range []string{"hash-max-ziplist-entries 0", "zset-max-ziplist-entries 0", "set-max-intset-entries 0",
			"list-max-ziplist-size 2", "list-compress-depth 1", "rdbcompression no"} {
			do(t, rdb, "CONFIG SET "+set)
		}
		if s.AtLeast(7, 2) {
			do(t, rdb, "CONFIG SET set-max-listpack-entries 0")
		}
		fill(t, s, rdb, "unpacked:")
	}
	if s.AtLeast(7, 0) {
		doArgs(t, client(t, p, 0), "FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
	}
}

// key is what a server or a scan says of one.
type key struct {
	Type     string
	ExpireAt int64 // rounded to 10 s, since PTTL is relative
}

const round = 10_000

// serverKeys asks for all keys.
func serverKeys(t *testing.T, p *localredis.Server) map[string]key {
	t.Helper()
	all := map[string]key{}
	ctx := context.Background()
	for _, db := range databases {
		rdb := client(t, p, db)
		for it := rdb.Scan(ctx, 0, "*", 1000).Iterator(); it.Next(ctx); {
			k := key{Type: rdb.Type(ctx, it.Val()).Val()}
			if ttl := doArgs(t, rdb, "PTTL", it.Val()).(int64); ttl >= 0 {
				k.ExpireAt = (time.Now().UnixMilli() + ttl + round/2) / round
			}
			all[fmt.Sprintf("%d/%s", db, it.Val())] = k
		}
	}
	return all
}

// A file of every server has the keys that the server says it has, and RESTORE
// makes the same value of every payload.
func TestServerFiles(t *testing.T) {
	eachServer(t, func(t *testing.T, s server) {
		p, rdb := s.start(t)
		fillAll(t, s, p)
		for _, compress := range []string{"no", "yes"} {
			do(t, rdb, "CONFIG SET rdbcompression "+compress)
			file := save(t, p, rdb)
			all, info := mustScan(t, file)
			pushed, _, err := push(file, 1000, 1, 4096)
			if err != nil || len(pushed) != len(all) {
				t.Fatalf("the Writer has %d records, the Scanner %d: %v", len(pushed), len(all), err)
			}
			got, forms := map[string]key{}, map[string]int{}
			for _, r := range all {
				if r.Rec.Kind != rdbstream.KindKey {
					continue
				}
				k := key{Type: r.Rec.Type.Command()}
				if r.Rec.ExpireAt != rdbstream.NoExpiry {
					k.ExpireAt = (r.Rec.ExpireAt + round/2) / round
				}
				got[fmt.Sprintf("%d/%s", r.Rec.DB, r.Rec.Name)] = k
				forms[r.Rec.Type.String()]++
			}
			t.Logf("%s %d, %d bytes, %d keys: %v", info.Dialect, info.Version, info.Size, info.Keys, forms)
			if d := cmp.Diff(serverKeys(t, p), got); d != "" {
				t.Fatalf("keys (-server +scan):\n%s", d)
			}
			checkElements(t, p, all)
			checkSizes(t, p, all)
			restoreAll(t, s, p, file)
		}
	})
}

// checkElements compares the counts that a scan gives with the server's.
func checkElements(t *testing.T, p *localredis.Server, all []scanned) {
	t.Helper()
	count := map[string]string{"list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN"}
	checked := 0
	for _, db := range databases {
		rdb := client(t, p, db)
		for _, r := range all {
			if r.Rec.Kind != rdbstream.KindKey || r.Rec.DB != db || r.Rec.Elements == rdbstream.Unknown {
				continue
			}
			checked++
			if n := doArgs(t, rdb, count[r.Rec.Type.Command()], r.Rec.Name).(int64); n != r.Rec.Elements {
				t.Errorf("%.80q (%s) has %d elements, the scan says %d", r.Rec.Name, r.Rec.Type, n, r.Rec.Elements)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d keys with a known number of elements", checked)
	}
}

// checkSizes compares RESIZEDB with DBSIZE and the keys.
func checkSizes(t *testing.T, p *localredis.Server, all []scanned) {
	t.Helper()
	keys, expires := map[int]int64{}, map[int]int64{}
	for _, r := range all {
		if r.Rec.Kind == rdbstream.KindKey {
			if keys[r.Rec.DB]++; r.Rec.ExpireAt != rdbstream.NoExpiry {
				expires[r.Rec.DB]++
			}
		}
	}
	for _, r := range all {
		if db := r.Rec.DB; r.Rec.Kind == rdbstream.KindResizeDB && (int64(r.Rec.Keys) != keys[db] || int64(r.Rec.Expires) != expires[db]) {
			t.Errorf("db %d: RESIZEDB says %d keys, %d expire; scanned %d, %d", db, r.Rec.Keys, r.Rec.Expires, keys[db], expires[db])
		}
	}
	for _, db := range databases {
		if n := do(t, client(t, p, db), "DBSIZE").(int64); n != keys[db] {
			t.Errorf("db %d: DBSIZE %d, scanned %d", db, n, keys[db])
		}
	}
}

// restoreAll restores every key and function of a file of p in a new server, and
// compares the digests.
func restoreAll(t *testing.T, s server, p *localredis.Server, file []byte) {
	t.Helper()
	q, _ := s.start(t)
	from, to := map[int]*redis.Client{}, map[int]*redis.Client{}
	for _, db := range databases {
		from[db], to[db] = client(t, p, db), client(t, q, db)
	}
	restored := 0
	for sc := rdbstream.NewScanner(bytes.NewReader(file)); ; {
		rec, err := sc.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind != rdbstream.KindKey && rec.Kind != rdbstream.KindFunction {
			continue
		}
		var payload bytes.Buffer
		if n, err := sc.WriteRestore(&payload); err != nil || n != int64(payload.Len()) || n != rec.Payload+11 {
			t.Fatalf("%d bytes of %d: %v", n, rec.Payload, err)
		}
		restored++
		if rec.Kind == rdbstream.KindFunction {
			doArgs(t, to[0], "FUNCTION", "RESTORE", payload.Bytes())
			continue
		}
		ttl := int64(0)
		if rec.ExpireAt != rdbstream.NoExpiry {
			ttl = rec.ExpireAt
		}
		doArgs(t, to[rec.DB], "RESTORE", rec.Name, ttl, payload.Bytes(), "ABSTTL")
		want := doArgs(t, from[rec.DB], "DEBUG", "DIGEST-VALUE", rec.Name)
		if got := doArgs(t, to[rec.DB], "DEBUG", "DIGEST-VALUE", rec.Name); !cmp.Equal(want, got) {
			t.Errorf("%.80q (%s): digest %v, restored %v", rec.Name, rec.Type, want, got)
		}
	}
	for _, db := range databases {
		if want, got := do(t, from[db], "DBSIZE"), do(t, to[db], "DBSIZE"); want != got {
			t.Errorf("db %d: %v keys restored of %v", db, got, want)
		}
	}
	if want, got := do(t, from[0], "DEBUG DIGEST"), do(t, to[0], "DEBUG DIGEST"); want != got {
		t.Errorf("the digest of all is %v, of what was restored %v", want, got)
	}
	if s.AtLeast(7, 0) && len(do(t, to[0], "FUNCTION LIST").([]any)) != 1 {
		t.Error("the function was not restored")
	}
	if restored < 150 {
		t.Errorf("only %d records restored", restored)
	}
}

// Idle times and frequencies are written where the policy needs them.
func TestEvictionFields(t *testing.T) {
	eachServer(t, func(t *testing.T, s server) {
		p, rdb := s.start(t)
		fillCollections(t, rdb, "x", 3)
		doArgs(t, rdb, "PEXPIREAT", "xhash", 4_000_000_000_000)
		for _, policy := range []string{"allkeys-lru", "allkeys-lfu"} {
			do(t, rdb, "CONFIG SET maxmemory-policy "+policy)
			for range 200 {
				do(t, rdb, "HLEN xhash")
			}
			all, _ := mustScan(t, save(t, p, rdb))
			n := 0
			for _, r := range all {
				if r.Rec.Kind != rdbstream.KindKey {
					continue
				}
				n++
				lru := r.Rec.Idle >= 0 && r.Rec.Idle < 100 && r.Rec.Freq == rdbstream.Unknown
				lfu := r.Rec.Freq >= 0 && r.Rec.Idle == rdbstream.Unknown
				if policy == "allkeys-lru" && !lru || policy == "allkeys-lfu" && !lfu {
					t.Errorf("%s: %q has idle %d, freq %d", policy, r.Rec.Name, r.Rec.Idle, r.Rec.Freq)
				}
				if string(r.Rec.Name) == "xhash" && r.Rec.ExpireAt != 4_000_000_000_000 {
					t.Errorf("%s: expiry %d", policy, r.Rec.ExpireAt)
				}
			}
			if n != 5 {
				t.Errorf("%s: %d keys", policy, n)
			}
		}
	})
}

// A master with a replica writes where in the stream the file stands.
func TestReplicationFields(t *testing.T) {
	eachServer(t, func(t *testing.T, s server) {
		p, rdb := s.start(t)
		r, replica := launch(t, localredis.Options{Binary: s.binary, ReplicaOf: p})
		until(t, replica, "INFO replication", "master_link_status:up")
		db7 := client(t, p, 7)
		doArgs(t, db7, "SET", "k", "v")
		if n := do(t, db7, "WAIT 1 5000").(int64); n != 1 {
			t.Fatal("the replica does not get the write")
		}
		until(t, rdb, "INFO persistence", "rdb_bgsave_in_progress:0")
		for name, c := range map[string]*redis.Client{"master": rdb, "replica": replica} {
			q := p
			if c == replica {
				q = r
			}
			info, err := rdbstream.ReadInfo(bytes.NewReader(save(t, q, c)))
			if err != nil {
				t.Fatal(err)
			}
			fields := infoFields(t, c)
			offset, _ := info.ReplOffset()
			db, ok := info.ReplStreamDB()
			if info.ReplID() != fields["master_replid"] || !ok || db != 7 {
				t.Errorf("%s: replid %q, want %q; db %d", name, info.ReplID(), fields["master_replid"], db)
			}
			// A PING may have been sent in between.
			if now, _ := strconv.ParseInt(fields["master_repl_offset"], 10, 64); offset > now || offset < now-100 || offset == 0 {
				t.Errorf("%s: offset %d, the server says %d", name, offset, now)
			}
		}
	})
}

func infoFields(t *testing.T, rdb *redis.Client) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(do(t, rdb, "INFO replication").(string)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		all[k] = v
	}
	return all
}

// In cluster mode, newer servers write how many keys a slot has.
func TestClusterFile(t *testing.T) {
	eachServer(t, func(t *testing.T, s server) {
		if !s.AtLeast(7, 0) {
			t.Skip("has no CLUSTER ADDSLOTSRANGE, and writes no SLOT_INFO")
		}
		p, rdb := s.start(t, "--cluster-enabled", "yes")
		do(t, rdb, "CLUSTER ADDSLOTSRANGE 0 16383")
		until(t, rdb, "CLUSTER INFO", "cluster_state:ok")
		for i := range 100 {
			doArgs(t, rdb, "SET", fmt.Sprintf("{%d}k%d", i%10, i), i)
		}
		all, _ := mustScan(t, save(t, p, rdb))
		slots, inSlots, keys := 0, uint64(0), 0
		for _, r := range all {
			switch r.Rec.Kind {
			case rdbstream.KindSlotInfo:
				slots++
				inSlots += r.Rec.Keys
			case rdbstream.KindKey:
				keys++
			}
		}
		wantSlots := 0
		if s.AtLeast(7, 4) { // Valkey 9 reads them and writes none
			wantSlots = 10
		}
		if keys != 100 || slots != wantSlots || slots > 0 && inSlots != 100 {
			t.Errorf("%d keys, %d slots with %d keys", keys, slots, inSlots)
		}
	})
}

func TestServerWithoutChecksum(t *testing.T) {
	eachServer(t, func(t *testing.T, s server) {
		p, rdb := s.start(t, "--rdbchecksum", "no")
		do(t, rdb, "SET a b")
		if _, info := mustScan(t, save(t, p, rdb)); info.Checked || info.Keys != 1 {
			t.Errorf("%+v", info)
		}
	})
}

// Cutting a small file of a server anywhere, and flipping any byte, is refused.
func TestServerFileDamaged(t *testing.T) {
	eachServer(t, func(t *testing.T, s server) {
		p, rdb := s.start(t)
		fillCollections(t, rdb, "x", 3)
		doArgs(t, rdb, "XADD", "s", "*", "a", "b")
		doArgs(t, rdb, "XGROUP", "CREATE", "s", "g", "0")
		file := save(t, p, rdb)
		for i := range file {
			if _, _, err := push(file[:i], 64); !errors.Is(err, rdbstream.ErrTruncated) {
				t.Errorf("cut at %d of %d: %v", i, len(file), err)
			}
			damaged := bytes.Clone(file)
			damaged[i] ^= 1 << (i % 8)
			refused(t, fmt.Sprintf("byte %d of %d flipped", i, len(file)), damaged, nil)
		}
	})
}
