package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp/localredis"
)

// rdbFile makes a server write a file with some keys and returns its path.
func rdbFile(t *testing.T) string {
	t.Helper()
	s, err := localredis.Start(context.Background(), localredis.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for _, c := range []string{"SET user:1:name Anna", "SET user:2:name Bea", "HSET h field value other 2",
		"PEXPIREAT user:1:name 4000000000000", "ZADD z 1.5 m", "CONFIG SET rdbcompression no", "SAVE"} {
		if reply, err := localredis.Do(s.Addr(), strings.Fields(c)...); err != nil || strings.HasPrefix(reply, "-") {
			t.Fatalf("%s: %s, %v", c, reply, err)
		}
	}
	return filepath.Join(s.Dir(), "dump.rdb")
}

func TestInspectTables(t *testing.T) {
	p := start("inspect", rdbFile(t), "--top", "2")
	if code := p.wait(t); code != exitOK || p.stderr.String() != "" {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	head, tables, _ := strings.Cut(p.stdout.String(), "\n\n")
	for _, want := range []string{"Redis RDB ", "checksum ok", "redis-ver ", "written 20", "4 keys in ", "1 expire, 0 have expired (0.0% of all)"} {
		if !strings.Contains(head, want) {
			t.Errorf("%q is not in %q", want, head)
		}
	}
	want := `TYPE    STORED AS      KEYS  BYTES  SHARE  LARGEST
string  string         2     44B    45.4%  27B
hash    hash-listpack  1     34B    35.1%  34B
zset    zset-listpack  1     19B    19.6%  19B

DB  KEYS  EXPIRES  EXPIRED  BYTES  SHARE
0   4     1        0        97B    100.0%

EXPIRES WITHIN  KEYS  SHARE  BYTES
expired         0     0.0%   0B
1m              0     0.0%   0B
10m             0     0.0%   0B
1h              0     0.0%   0B
6h              0     0.0%   0B
1d              0     0.0%   0B
7d              0     0.0%   0B
30d             0     0.0%   0B
1y              0     0.0%   0B
more            1     25.0%  27B
never           3     75.0%  70B

BYTES  ELEMENTS  TYPE    STORED AS      DB  EXPIRES AT            LARGEST KEYS
34B    -         hash    hash-listpack  0   -                     h
27B    -         string  string         0   2096-10-02T07:06:40Z  user:1:name

BYTES  SHARE  KEYS  LARGEST PREFIXES
44B    45.4%  2     user:
27B    27.8%  1     user:1:
`
	if d := cmp.Diff(want, tables); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestInspectJSON(t *testing.T) {
	file := rdbFile(t)
	p := start("inspect", file, "--json", "--prefix-sep", ":2", "--top", "1")
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	var got struct {
		Keys int64
		File struct {
			Size     int64
			Checksum string
		}
		Prefixes []struct{ Prefix string }
		Top      []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(p.stdout.String()), &got); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(file)
	if err != nil || got.Keys != 4 || got.File.Size != st.Size() || got.File.Checksum != "ok" ||
		fmt.Sprint(got.Prefixes) != "[{user:2}]" || fmt.Sprint(got.Top) != "[{h}]" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestInspectKey(t *testing.T) {
	file := rdbFile(t)
	p := start("inspect", file, "--key", "h")
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	want := "db 0   h   hash, stored as hash-listpack   34 bytes   elements -   expires -\n  field  value\n  other  2\n"
	if d := cmp.Diff(want, p.stdout.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	p = start("inspect", file, "--key", "z", "--json")
	var got inspectedKeys
	if code := p.wait(t); code != exitOK || json.Unmarshal([]byte(p.stdout.String()), &got) != nil ||
		len(got.Keys) != 1 || fmt.Sprint(got.Keys[0].Value.Items) != "[{m 1.5}]" {
		t.Errorf("exit code %d: %s", code, p.stdout)
	}
	p = start("inspect", file, "--key", "none")
	if code := p.wait(t); code != exitRuntime || !strings.Contains(p.stderr.String(), "no such key: none") || p.stdout.String() != "" {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// inspectedKeys is the JSON of --key, as far as it is looked at.
type inspectedKeys struct {
	Keys []struct {
		Value struct {
			Items []struct {
				Value string
				Score float64
			}
		}
	}
}

func TestInspectStandardInput(t *testing.T) {
	file, err := os.ReadFile(rdbFile(t))
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	e := &env{stdin: bytes.NewReader(file), stdout: &stdout, stderr: &stderr, signals: make(chan os.Signal)}
	if code := run([]string{"inspect", "-"}, e); code != exitOK || !strings.Contains(stdout.String(), "4 keys") {
		t.Errorf("exit code %d: %s%s", code, &stdout, &stderr)
	}
}

// A file that is not in order gives no figures, and an error that says where.
func TestInspectErrors(t *testing.T) {
	good, err := os.ReadFile(rdbFile(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-20] ^= 1
	cut := write("cut", good[:len(good)-5])
	for _, tc := range []struct {
		args string
		code int
		text string
	}{
		{cut, exitRuntime, fmt.Sprintf("cut: rdb offset %d: reading the checksum: the file is cut short", len(good)-5)},
		{cut + " --key h", exitRuntime, "cut short"},
		{write("flipped", flipped), exitRuntime, "rdb offset"},
		{write("text", []byte("some text, no database")), exitRuntime, "not an RDB file"},
		{write("longer", append(bytes.Clone(good), 'x')), exitRuntime, "bytes after the end"},
		{filepath.Join(dir, "missing"), exitRuntime, "missing: no such file"},
		{dir, exitUsage, "is a directory"},
		{cut + " --top -1", exitUsage, "--top"},
		{cut + " --prefix-sep=", exitUsage, "--prefix-sep"},
		{"", exitUsage, "<file>"},
	} {
		p := start(append([]string{"inspect"}, strings.Fields(tc.args)...)...)
		if code := p.wait(t); code != tc.code || !strings.Contains(p.stderr.String(), tc.text) || p.stdout.String() != "" {
			t.Errorf("%s: exit code %d, %q does not say %q; printed %q", tc.args, code, p.stderr, tc.text, p.stdout)
		}
	}
}

// A signal ends the reading, also of input that does not come.
func TestInspectInterrupted(t *testing.T) {
	for _, blocked := range []bool{false, true} {
		r, w := io.Pipe()
		p := &inProcess{newOutput(), newOutput(), make(chan os.Signal, 1), make(chan int, 1)}
		go func() {
			p.code <- run([]string{"inspect", "-"}, &env{stdin: r, stdout: p.stdout, stderr: p.stderr, signals: p.signals})
		}()
		if _, err := w.Write([]byte("REDIS0011")); err != nil { // it reads
			t.Fatal(err)
		}
		writer := make(chan struct{})
		go func() { // aux fields without end
			defer close(writer)
			for err := error(nil); err == nil && !blocked; {
				_, err = w.Write([]byte{250, 1, 'a', 1, 'b'})
			}
		}()
		p.signals <- os.Interrupt
		if code := p.wait(t); code != exitRuntime || !strings.Contains(p.stderr.String(), "interrupted") {
			t.Errorf("exit code %d: %s", code, p.stderr)
		}
		_ = r.Close() // ends who is still reading or writing
		<-writer
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := &progressReader{ctx: t.Context(), r: strings.NewReader(strings.Repeat("x", 4096)), size: 8192, out: &out, start: time.Now()}
	buf := make([]byte, 2048)
	read := func() {
		if _, err := p.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if read(); out.Len() != 0 {
		t.Errorf("drawn at once: %q", &out)
	}
	p.start = p.start.Add(-2 * time.Second)
	if read(); !strings.Contains(out.String(), " 50%  read 4.00K of 8.00K, ") {
		t.Errorf("drawn: %q", &out)
	}
	if p.clear(); !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("not cleared: %q", &out)
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.00K", 1536: "1.50K", 1 << 20: "1.00M", 5 << 30: "5.00G", 1 << 60: "1024.00P"} {
		if got := human(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
