package inspect_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/rdbstream"
	"github.com/sluice-io/sluice/rdbstream/inspect"
	"github.com/sluice-io/sluice/resp/localredis"
)

// lookup returns the one key of that name.
func lookup(t *testing.T, file []byte, name string) (inspect.Found, *inspect.Result) {
	t.Helper()
	r, err := inspect.Lookup(bytes.NewReader(file), name)
	if err != nil || len(r.Keys) != 1 {
		t.Fatalf("%s: %d keys, %v", name, len(r.Keys), err)
	}
	return r.Keys[0], r
}

// flat renders a value as a sorted list of what the server would say.
func flat(v *inspect.Value) []string {
	var all []string
	if v.Text != nil {
		all = append(all, string(*v.Text))
	}
	for _, i := range v.Items {
		s := string(i.Value)
		if i.Field != nil {
			s = string(*i.Field) + " " + s
		}
		if i.Score != nil {
			s += " " + strconv.FormatFloat(*i.Score, 'g', -1, 64)
		}
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// pairs joins the elements of a reply in twos, sorted.
func pairs(reply any, n int) []string {
	var all []string
	for c := range slices.Chunk(reply.([]any), n) {
		all = append(all, strings.TrimSuffix(fmt.Sprintln(c...), "\n"))
	}
	slices.Sort(all)
	return all
}

// What is shown of a value is what the server says.
func TestLookup(t *testing.T) {
	eachServer(t, func(t *testing.T, p *localredis.Server) {
		rdb := client(t, p, 0)
		do(t, rdb, "SET", "string", "text")
		do(t, rdb, "SET", "number", 12345)
		for i := range 90 {
			e := fmt.Sprintf("e%d", i)
			do(t, rdb, "RPUSH", "list", e)
			do(t, rdb, "SADD", "set", e)
			do(t, rdb, "SADD", "intset", i)
			do(t, rdb, "ZADD", "zset", i, e)
			do(t, rdb, "HSET", "hash", e, i)
		}
		do(t, rdb, "ZADD", "skiplist", 1.5, strings.Repeat("m", 100), 2, "b")
		do(t, rdb, "HSET", "table", strings.Repeat("m", 100), "v", "b", "w")
		do(t, rdb, "PEXPIREAT", "hash", 4_000_000_000_000)
		do(t, rdb, "XADD", "stream", "5-1", "b", "2", "a", "1")
		do(t, rdb, "XADD", "stream", "6-1", "c", "3")
		do(t, rdb, "XGROUP", "CREATE", "stream", "g", "0")
		do(t, client(t, p, 3), "SET", "string", "in another database")
		file := save(t, p)
		for name, want := range map[string][]string{
			"number":   {"12345"},
			"list":     pairs(do(t, rdb, "LRANGE", "list", 0, -1), 1),
			"set":      pairs(do(t, rdb, "SMEMBERS", "set"), 1),
			"intset":   pairs(do(t, rdb, "SMEMBERS", "intset"), 1),
			"zset":     pairs(do(t, rdb, "ZRANGE", "zset", 0, -1, "WITHSCORES"), 2),
			"skiplist": pairs(do(t, rdb, "ZRANGE", "skiplist", 0, -1, "WITHSCORES"), 2),
			"hash":     pairs(do(t, rdb, "HGETALL", "hash"), 2),
			"table":    pairs(do(t, rdb, "HGETALL", "table"), 2),
			"stream":   {"5-1 a=1 b=2", "6-1 c=3"},
		} {
			f, _ := lookup(t, file, name)
			if f.Error != "" || f.Value.More != 0 {
				t.Errorf("%s: %+v", name, f)
				continue
			}
			if got := flat(f.Value); !slices.Equal(got, want) {
				t.Errorf("%s: %q, the server says %q", name, got, want)
			}
		}
		if f, _ := lookup(t, file, "hash"); f.ExpireAt.UnixMilli() != 4_000_000_000_000 || f.Type != "hash" {
			t.Errorf("%+v", f.Key)
		}
		r, err := inspect.Lookup(bytes.NewReader(file), "string")
		if err != nil || len(r.Keys) != 2 || *r.Keys[0].Value.Text != "text" || *r.Keys[1].Value.Text != "in another database" || r.Keys[1].DB != 3 {
			t.Errorf("in two databases: %+v, %v", r, err)
		}
		if r, err := inspect.Lookup(bytes.NewReader(file), "none"); err != nil || len(r.Keys) != 0 {
			t.Errorf("no such key: %+v, %v", r, err)
		}
	})
}

// Fields that expire on their own, where the server has them.
func TestLookupFieldExpiry(t *testing.T) {
	eachServer(t, func(t *testing.T, p *localredis.Server) {
		rdb := client(t, p, 0)
		do(t, rdb, "HSET", "h", "a", "1", "b", "2")
		if err := rdb.Do(t.Context(), "HPEXPIREAT", "h", 4_000_000_000_123, "FIELDS", 1, "b").Err(); err != nil {
			t.Skip("fields do not expire in this server")
		}
		f, _ := lookup(t, save(t, p), "h")
		if f.Error != "" || len(f.Value.Items) != 2 || !f.Value.Items[0].ExpireAt.IsZero() || f.Value.Items[1].ExpireAt.UnixMilli() != 4_000_000_000_123 {
			t.Errorf("%+v", f)
		}
	})
}

func TestLookupShowsTheFirstItems(t *testing.T) {
	eachServer(t, func(t *testing.T, p *localredis.Server) {
		rdb := client(t, p, 0)
		args := []any{"RPUSH", "l"}
		for i := range 1000 {
			args = append(args, i)
		}
		do(t, rdb, args...)
		f, _ := lookup(t, save(t, p), "l")
		if f.Error != "" || len(f.Value.Items) != inspect.MaxItems || f.Value.More != 1000-inspect.MaxItems || f.Value.Items[99].Value != "99" {
			t.Errorf("%d shown, %d more, error %q", len(f.Value.Items), f.Value.More, f.Error)
		}
	})
}

// handmade is a file with one key, of type code.
func handmade(code byte, name, value string) []byte {
	file := append([]byte("REDIS0012"), code, byte(len(name)))
	file = append(append(append(file, name...), value...), 0xFF)
	return binary.LittleEndian.AppendUint64(file, rdbstream.Checksum(0, file))
}

// A list on which the decoder panics (a plain node before a packed one, as
// Redis 8 writes for RPUSH l <9000 bytes> small) costs neither the process nor
// a figure.
func TestDecoderPanics(t *testing.T) {
	listpack := "\x0e\x00\x00\x00\x01\x00\x85small\x06\xff"
	file := handmade(18, "l", "\x02"+"\x01\x80\x00\x00\x23\x28"+bytesOf(9000)+"\x02\x0e"+listpack)
	f, r := lookup(t, file, "l")
	if r.Panics != 1 || !strings.Contains(f.Error, "panic") || f.Bytes < 9000 {
		t.Errorf("%d panics, error %q, %d bytes", r.Panics, f.Error, f.Bytes)
	}
	if r, err := inspect.Run(bytes.NewReader(file), inspect.Options{}); err != nil || r.Keys != 1 || r.Top[0].Bytes != f.Bytes {
		t.Errorf("%+v, %v", r, err)
	}
}

// Values of modules are not given to the decoder, which would print.
func TestModulesAreNotDecoded(t *testing.T) {
	file := handmade(7, "m", "\x05\x02\x07\x00")
	stdout := os.Stdout
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = write
	f, _ := lookup(t, file, "m")
	os.Stdout = stdout
	_ = write.Close()
	var printed bytes.Buffer
	if _, err := printed.ReadFrom(read); err != nil || printed.Len() > 0 {
		t.Errorf("printed %q, %v", &printed, err)
	}
	if f.Type != "module" || !strings.Contains(f.Error, "AAAAAAAAA") {
		t.Errorf("%+v", f)
	}
}

// Whatever the value is, the decoder's failure is told and not fatal.
func FuzzLookup(f *testing.F) {
	for code := range byte(27) {
		f.Add(code, []byte("\x02\x01a\x01b\x01c\x01d"), false)
		f.Add(code, []byte("\x0c\x0c\x00\x00\x00\x02\x00\x81a\x02\x81b\x02\xff"), code%2 == 0)
	}
	f.Fuzz(func(t *testing.T, code byte, value []byte, valkey bool) {
		file := []byte("REDIS0013")
		if valkey {
			file = []byte("VALKEY080")
		}
		file = append(append(append(file, code, 1, 'k'), value...), 0xFF, 0, 0, 0, 0, 0, 0, 0, 0)
		r, err := inspect.Lookup(bytes.NewReader(file), "k")
		if err != nil {
			return
		}
		for _, f := range r.Keys {
			if (f.Value == nil) == (f.Error == "") {
				t.Fatalf("%+v", f)
			}
		}
	})
}
