package inspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/rdbstream"
	"github.com/sluice-io/sluice/rdbstream/inspect"
	"github.com/sluice-io/sluice/resp/localredis"
)

// eachServer runs f on a new server of each binary.
func eachServer(t *testing.T, f func(t *testing.T, p *localredis.Server)) {
	for _, binary := range localredis.TestServers() {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			p, err := localredis.Start(context.Background(), localredis.Options{Binary: binary})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			f(t, p)
		})
	}
}

func client(t *testing.T, p *localredis.Server, db int) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: p.Addr(), DB: db, PoolSize: 1, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func do(t *testing.T, rdb *redis.Client, args ...any) any {
	t.Helper()
	reply, err := rdb.Do(context.Background(), args...).Result()
	if err != nil {
		t.Fatalf("%.100v: %v", args, err)
	}
	return reply
}

func save(t *testing.T, p *localredis.Server) []byte {
	t.Helper()
	do(t, client(t, p, 0), "SAVE")
	b, err := os.ReadFile(filepath.Join(p.Dir(), "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The figures are those of the server.
func TestRun(t *testing.T) {
	eachServer(t, func(t *testing.T, p *localredis.Server) {
		now := time.Now()
		for _, db := range []int{0, 5} {
			pipe := client(t, p, db).Pipeline()
			ctx := context.Background()
			for i := range 2000 {
				pipe.Set(ctx, fmt.Sprintf("user:%d:name", i), "x", 0)
				pipe.HSet(ctx, fmt.Sprintf("session:%d", i), "a", i)
				pipe.PExpireAt(ctx, fmt.Sprintf("session:%d", i), now.Add(time.Duration(i+60)*time.Minute))
			}
			pipe.RPush(ctx, "app:queue:big", strings.Repeat("no", 1), bytesOf(50000+db))
			pipe.ZAdd(ctx, "plain", redis.Z{Score: 1, Member: "m"})
			if _, err := pipe.Exec(ctx); err != nil {
				t.Fatal(err)
			}
		}
		file := save(t, p)
		r, err := inspect.Run(bytes.NewReader(file), inspect.Options{Top: 3, Now: now.Add(100 * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		for i, db := range []int{0, 5} {
			keyspace := do(t, client(t, p, db), "INFO", "keyspace").(string)
			m := regexp.MustCompile(fmt.Sprintf(`db%d:keys=(\d+),expires=(\d+)`, db)).FindStringSubmatch(keyspace)
			got := r.Databases[i]
			if want := fmt.Sprint(m[1:]); fmt.Sprint([]int64{got.Keys, got.Expires}) != want || got.DB != db {
				t.Errorf("%+v, the server says %s", got, want)
			}
			if got.Expired != 40 {
				t.Errorf("db %d: %d have expired, want those of 60 to 99 minutes", db, got.Expired)
			}
		}
		if r.Keys != 8004 || r.Expires != 4000 || r.Expired != 80 || r.Bytes+r.OtherBytes != int64(len(file)) {
			t.Errorf("%d keys, %d expire, %d expired; %d + %d bytes of %d", r.Keys, r.Expires, r.Expired, r.Bytes, r.OtherBytes, len(file))
		}
		checkSums(t, r)
		checkLists(t, r)
	})
}

// checkSums checks that each breakdown adds up to the whole.
func checkSums(t *testing.T, r *inspect.Report) {
	t.Helper()
	var types, dbs, ttl [2]int64
	commands := map[string]int64{}
	for _, s := range r.Types {
		types[0], types[1] = types[0]+s.Keys, types[1]+s.Bytes
		commands[s.Type] += s.Keys
	}
	for _, s := range r.Databases {
		dbs[0], dbs[1] = dbs[0]+s.Keys, dbs[1]+s.Bytes
	}
	within := map[string]int64{}
	for _, s := range r.TTL {
		ttl[0], ttl[1] = ttl[0]+s.Keys, ttl[1]+s.Bytes
		within[s.Within] = s.Keys
	}
	want := [2]int64{r.Keys, r.Bytes}
	if types != want || dbs != want || ttl != want {
		t.Errorf("types %d, databases %d, expiries %d, not %d", types, dbs, ttl, want)
	}
	if d := cmp.Diff(map[string]int64{"string": 4000, "hash": 4000, "list": 2, "zset": 2}, commands); d != "" {
		t.Errorf("types (-want +got):\n%s", d)
	}
	// Twice: minutes 100 to 2059 from minute 100 on.
	wantTTL := map[string]int64{"expired": 80, "1m": 4, "10m": 18, "1h": 100, "6h": 600, "1d": 2160, "7d": 1038,
		"30d": 0, "1y": 0, "more": 0, "never": 4004}
	if d := cmp.Diff(wantTTL, within); d != "" {
		t.Errorf("expiries (-want +got):\n%s", d)
	}
}

func checkLists(t *testing.T, r *inspect.Report) {
	t.Helper()
	if len(r.Top) != 3 || r.Top[0].DB != 5 || r.Top[1].DB != 0 || r.Top[0].Name != "app:queue:big" || r.Top[0].Bytes < 50005 || r.Top[2].Bytes > 100 {
		t.Errorf("largest keys: %+v", r.Top)
	}
	var names []string
	keys := map[string]int64{}
	for _, p := range r.Prefixes {
		names = append(names, string(p.Prefix))
		if keys[string(p.Prefix)] = p.Keys; p.Missed != 0 {
			t.Errorf("%+v is not exact", p)
		}
	}
	if len(names) != 3 || keys["session:"] != 4000 && keys["user:"] != 4000 {
		t.Errorf("largest prefixes: %+v", r.Prefixes)
	}
}

// bytesOf returns n bytes that do not compress.
func bytesOf(n int) string {
	var b strings.Builder
	for x := uint32(1); b.Len() < n; {
		x = x*1664525 + 1013904223
		b.WriteByte(byte(x >> 24))
	}
	return b.String()
}

// With more prefixes than are kept, the large ones are still right, and what
// may be missing is said.
func TestPrefixesAreBounded(t *testing.T) {
	p, err := localredis.Start(context.Background(), localredis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	pipe := client(t, p, 0).Pipeline()
	for i := range 20000 {
		pipe.Set(context.Background(), fmt.Sprintf("big:%d:", i), "v", 0)
		pipe.Set(context.Background(), fmt.Sprintf("one%d:", i), "v", 0)
	}
	if _, err := pipe.Exec(context.Background()); err != nil {
		t.Fatal(err)
	}
	file := save(t, p)
	r, err := inspect.Run(bytes.NewReader(file), inspect.Options{Top: 5, MaxPrefixes: 50})
	if err != nil {
		t.Fatal(err)
	}
	if r.Prefixes[0].Prefix != "big:" || r.Prefixes[0].Keys != 20000 || r.Prefixes[0].Missed != 0 {
		t.Errorf("the largest: %+v", r.Prefixes[0])
	}
	for _, small := range r.Prefixes[1:] {
		if small.Keys != 1 || small.Missed == 0 {
			t.Errorf("a small one, after others were forgotten: %+v", small)
		}
	}
	if r, err = inspect.Run(bytes.NewReader(file), inspect.Options{Top: inspect.None}); err != nil || len(r.Top)+len(r.Prefixes) != 0 || r.Keys != 40000 {
		t.Errorf("Top None: %d keys, %d prefixes, %v", len(r.Top), len(r.Prefixes), err)
	}
}

func TestRunRefusesDamage(t *testing.T) {
	for _, file := range [][]byte{nil, []byte("REDIS0011\xff"), []byte("something else")} {
		if r, err := inspect.Run(bytes.NewReader(file), inspect.Options{}); r != nil || err == nil {
			t.Errorf("%q: %+v, %v", file, r, err)
		}
		if _, err := inspect.Lookup(bytes.NewReader(file), "k"); err == nil {
			t.Errorf("%q: Lookup accepts it", file)
		}
	}
	if _, err := inspect.Run(strings.NewReader("REDIS0011"), inspect.Options{}); !errors.Is(err, rdbstream.ErrTruncated) {
		t.Errorf("got %v", err)
	}
}

func TestText(t *testing.T) {
	for _, tc := range []struct{ text, shown, json string }{
		{"key:1", "key:1", `"key:1"`},
		{"naïve ключ", "naïve ключ", `"naïve ключ"`},
		{"", `""`, `""`},
		{"a\nb", `"a\nb"`, `"a\nb"`},
		{`"quoted`, `"\"quoted"`, `"\"quoted"`},
		{"\xff\x00", `"\xff\x00"`, `{"base64":"/wA="}`},
	} {
		b, err := json.Marshal(inspect.Text(tc.text))
		if got := inspect.Text(tc.text).String(); got != tc.shown || string(b) != tc.json || err != nil {
			t.Errorf("%q: shown as %s, JSON %s, %v", tc.text, got, b, err)
		}
	}
}
