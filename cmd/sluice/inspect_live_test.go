package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/rdbstream/inspect"
	"github.com/sluice-io/sluice/resp/localredis"
)

// What inspect counts in a file that a server wrote is what the server says:
// DBSIZE, the keys with an expiry, and the largest ones. A million keys with
// SLUICE_LONG=1.
func TestInspectAgreesWithTheServer(t *testing.T) {
	keys := 20_000
	if os.Getenv("SLUICE_LONG") == "1" {
		keys = 1_000_000
	}
	dir := t.TempDir()
	master := startRedis(t, localredis.Options{Dir: dir, Args: []string{"--enable-debug-command", "yes"}})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	open := func(db int) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: master.Addr(), DB: db, ReadTimeout: time.Minute})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	zero, five := open(0), open(5)
	if err := zero.Do(ctx, "DEBUG", "POPULATE", keys, "populated", 20).Err(); err != nil {
		t.Fatal(err)
	}
	const hashes, expiring = 300, 100
	pipe := five.Pipeline()
	for i := range hashes {
		pipe.HSet(ctx, fmt.Sprintf("hash:%d", i), "f", i, "g", strings.Repeat("x", 100))
	}
	for i := range expiring {
		pipe.Set(ctx, fmt.Sprintf("session:%d", i), "s", time.Hour)
	}
	for i := range 3 { // the largest, each by far; not compressible to nothing
		var b strings.Builder
		for n := range 100_000 * (i + 1) {
			_, _ = fmt.Fprintf(&b, "%d,", n*7919)
		}
		pipe.Set(ctx, fmt.Sprintf("big:%d", i), b.String(), 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	if err := zero.Save(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	p := start("inspect", "--json", "--top", "3", filepath.Join(dir, "dump.rdb"))
	select {
	case code := <-p.code:
		if code != exitOK {
			t.Fatalf("exit code %d: %s", code, p.stderr)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("still running")
	}
	var rep inspect.Report
	if err := json.Unmarshal([]byte(p.stdout.String()), &rep); err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, db := range rep.Databases {
		c := map[int]*redis.Client{0: zero, 5: five}[db.DB]
		if c == nil {
			t.Fatalf("there is nothing in database %d", db.DB)
		}
		if n, err := c.DBSize(ctx).Result(); err != nil || db.Keys != n {
			t.Errorf("database %d: %d keys, DBSIZE is %d, %v", db.DB, db.Keys, n, err)
		}
		want := fmt.Sprintf("db%d:keys=%d,expires=%d,", db.DB, db.Keys, db.Expires)
		if info, err := c.Info(ctx, "keyspace").Result(); err != nil || !strings.Contains(info, want) {
			t.Errorf("%s, want %s, %v", info, want, err)
		}
		total += db.Keys
	}
	if want := int64(keys + hashes + expiring + 3); rep.Keys != want || total != want || rep.Expires != expiring || len(rep.Databases) != 2 {
		t.Errorf("%d keys, %d in all databases, want %d; %d expire; %d databases", rep.Keys, total, want, rep.Expires, len(rep.Databases))
	}
	for i, want := range []inspect.Text{"big:2", "big:1", "big:0"} {
		if k := rep.Top[i]; k.Name != want || k.DB != 5 {
			t.Errorf("top %d is %s of database %d, want %s", i+1, k.Name, k.DB, want)
		}
	}
}
