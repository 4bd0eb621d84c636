package backend_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/resp/localredis"
)

// A dial that is given up as TLS begins ends at once; the race detector sees
// whether it is the socket that is ended.
func TestDialIsGivenUpAsTLSBegins(t *testing.T) {
	s, err := localredis.Start(context.Background(), localredis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	ctx, cancel := context.WithCancel(context.Background())
	d := backend.Dialer{Timeout: func() time.Duration { return time.Minute }, TLS: func() *tls.Config {
		cancel()
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}}
	if _, err := d.Dial(ctx, s.Addr(), backend.Identity{Proto: 2}, true); err == nil {
		t.Error("the dial was not given up")
	}
}
