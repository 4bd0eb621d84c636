package localredis_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

func TestStartReplicaAndStop(t *testing.T) {
	ctx := context.Background()
	m, err := localredis.Start(ctx, localredis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop()
	r, err := localredis.Start(ctx, localredis.Options{ReplicaOf: m})
	if err != nil {
		t.Fatal(err)
	}
	dir := r.Dir()
	info, err := localredis.Do(r.Addr(), "INFO", "replication")
	if err != nil || !strings.Contains(info, "role:slave") {
		t.Fatalf("INFO of the replica: %q, %v", info, err)
	}
	r.Stop()
	select {
	case <-r.Done():
	case <-time.After(time.Second):
		t.Fatal("Stop returned before the process had ended")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("directory %s is still there: %v", dir, err)
	}
}

func TestStartFailureShowsTheLog(t *testing.T) {
	_, err := localredis.Start(context.Background(), localredis.Options{Args: []string{"--no-such-setting", "1"}, Port: 1})
	if err == nil || !strings.Contains(err.Error(), "process ended") {
		t.Fatalf("err = %v, want one that says that the process ended", err)
	}
}

func TestRestartKeepsThePort(t *testing.T) {
	ctx := context.Background()
	s, err := localredis.Start(ctx, localredis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	port := s.Port()
	s.Kill()
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if s.Port() != port {
		t.Fatalf("port %d after restart, want %d", s.Port(), port)
	}
	if got, err := localredis.Do(s.Addr(), "PING"); err != nil || got != "+PONG" {
		t.Fatalf("PING: %q, %v", got, err)
	}
}
