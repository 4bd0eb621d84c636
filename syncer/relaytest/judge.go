package relaytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/store"
)

// Judge has a stock server of the master's version load base, log and nothing
// else, and compares its data with the master's.
func Judge(t testing.TB, st *store.Store, master *localredis.Server) {
	t.Helper()
	want := Digest(t, master)
	g := st.Current()
	if g == nil {
		t.Fatal("there is no base")
	}
	dir := t.TempDir()
	aof := filepath.Join(dir, "appendonlydir")
	if err := os.Mkdir(aof, 0o755); err != nil {
		t.Fatal(err)
	}
	base, err := g.OpenBase(context.Background(), g.Bases()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = base.Close() }()
	writeFile(t, filepath.Join(aof, "a.1.base.rdb"), base)
	log, err := g.NewReader(base.Offset)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	db := strconv.Itoa(max(base.DB, 0))
	sel := fmt.Sprintf("*2\r\n$6\r\nSELECT\r\n$%d\r\n%s\r\n", len(db), db)
	writeFile(t, filepath.Join(aof, "a.1.incr.aof"), io.MultiReader(strings.NewReader(sel), io.LimitReader(log, int64(g.Committed()-base.Offset))))
	writeFile(t, filepath.Join(aof, "a.manifest"), strings.NewReader("file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\n"))
	s := StartRedis(t, localredis.Options{Binary: master.Binary(), Dir: dir, Args: []string{"--appendonly", "yes", "--appendfilename", "a", "--aof-load-truncated", "no"}})
	defer s.Stop()
	Await(t, "judge has loaded", func() bool { return Info(t, s, "loading") == "0" })
	if got := Digest(t, s); got != want || strings.Trim(got, "+0") == "" {
		t.Fatalf("digest of base at %d (db %d) and log to %d in %v is %s, the master has %s",
			base.Offset, base.DB, g.Committed(), g.History(), got, want)
	}
}

func writeFile(t testing.TB, path string, r io.Reader) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = io.Copy(f, r)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
