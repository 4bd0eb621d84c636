package downstream

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// BenchmarkForward measures from Commit to the read of one replica, for a command
// of 64 bytes.
//
//	go test ./syncer/downstream -run xxx -bench Forward
func BenchmarkForward(b *testing.B) {
	st, err := store.Open(b.TempDir(), store.Options{Fsync: store.FsyncNo})
	if err != nil {
		b.Fatal(err)
	}
	pos := repl.Pos{ReplID: repl.ReplID(strings.Repeat("a", repl.ReplIDLen))}
	h, err := repl.NewHistory(pos.ReplID)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := st.NewGeneration(pos, h); err != nil {
		b.Fatal(err)
	}
	link, err := upstream.New(st, upstream.Options{Master: "127.0.0.1:1"})
	if err != nil {
		b.Fatal(err)
	}
	srv, err := New(st, link, Options{Listen: "127.0.0.1:0"})
	if err == nil {
		err = srv.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		srv.Close()
		link.Close()
		_ = st.Close()
	}()
	conn, err := net.Dial("tcp", srv.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	if _, err := conn.Write([]byte("REPLCONF capa psync2\r\nPSYNC " + string(pos.ReplID) + " 1\r\n")); err != nil {
		b.Fatal(err)
	}
	head := make([]byte, len(psync.ReplyOK)+len(psync.AppendContinue(nil, pos.ReplID, psync.CapaPSYNC2)))
	if _, err := io.ReadFull(conn, head); err != nil {
		b.Fatal(err)
	}
	command := []byte("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$29\r\n" + strings.Repeat("v", 29) + "\r\n")
	got := make([]byte, len(command))
	off := pos.Offset
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := st.Append(command); err != nil {
			b.Fatal(err)
		}
		off += repl.Offset(len(command))
		if err := st.Commit(store.Mark{Offset: off, Time: time.Now()}); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, got); err != nil {
			b.Fatal(err)
		}
	}
}
