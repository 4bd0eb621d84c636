package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/resp/localredis/tlstest"
)

// pki is an authority with what it has issued for a test.
type pki struct {
	ca             *tlstest.CA
	server, client *tlstest.Cert
}

func newPKI(t testing.TB) *pki {
	ca := tlstest.NewCA(t, "authority")
	return &pki{ca, ca.Issue(t, "server"), ca.Issue(t, "client")}
}

// listener demands a client certificate of the authority.
func (p *pki) listener() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{p.server.Certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: p.ca.Pool(),
	}
}

// dialer is what a good client uses.
func (p *pki) dialer() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{p.client.Certificate}, RootCAs: p.ca.Pool()}
}

func freePort(t testing.TB) string {
	t.Helper()
	n, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(n)
}

// tlsCluster is a master and a replica that can be reached, and reach each
// other, by TLS with client certificates, and a proxy whose clients need them.
func tlsCluster(t *testing.T, p *pki, set func(*proxy.Options)) *cluster {
	t.Helper()
	port := freePort(t)
	c := &cluster{master: startRedis(t, localredis.Options{Args: p.server.RedisArgs(p.ca, port)})}
	c.replicas = append(c.replicas, startRedis(t, localredis.Options{Args: append(p.server.RedisArgs(p.ca, freePort(t)),
		"--tls-replication", "yes", "--replicaof", "127.0.0.1", port)}))
	awaitInfo(t, c.replicas[0], "master_link_status:up")
	c.front(t, func(o *proxy.Options) {
		o.Master = "127.0.0.1:" + port // the plain port is never used, nor the replica's
		o.TLS = p.dialer()
		o.Listeners[0].TLS = p.listener()
		if set != nil {
			set(o)
		}
	})
	for _, n := range c.srv.Status().Nodes {
		if n.Address == c.master.Addr() || n.Address == c.replicas[0].Addr() {
			t.Fatalf("the proxy uses a plain port: %+v", n)
		}
	}
	return c
}

// TestTLSBothSides serves clients with TLS from nodes with TLS: shared and
// pinned connections, messages, values of several megabytes, replicas.
func TestTLSBothSides(t *testing.T) {
	p := newPKI(t)
	c := tlsCluster(t, p, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, protocol := range []int{2, 3} {
		r := c.client(t, func(o *redis.Options) { o.TLSConfig, o.Protocol = p.dialer(), protocol })
		big := strings.Repeat("0123456789abcdef", 300_000)
		if err := r.Set(ctx, "big", big, 0).Err(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got, err := r.Get(ctx, "big").Result(); err != nil || got != big {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
		cmds, err := r.Pipelined(ctx, func(q redis.Pipeliner) error {
			for i := range 5000 {
				q.Set(ctx, fmt.Sprint("k", i), i, 0)
			}
			return nil
		})
		if err != nil || len(cmds) != 5000 {
			t.Fatal(err)
		}
		if err := r.Watch(ctx, func(tx *redis.Tx) error {
			_, err := tx.TxPipelined(ctx, func(q redis.Pipeliner) error { q.Incr(ctx, "n"); return nil })
			return err
		}, "n"); err != nil {
			t.Fatal(err)
		}
		sub := r.Subscribe(ctx, "news")
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		if err := r.Publish(ctx, "news", "hello").Err(); err != nil {
			t.Fatal(err)
		}
		if m, err := sub.ReceiveMessage(ctx); err != nil || m.Payload != "hello" {
			t.Fatal(m, err)
		}
		_ = sub.Close()
		for i := 0; calls(t, c.replicas[0], "get") < 100; i++ {
			if v, err := r.Get(ctx, fmt.Sprint("k", i%5000)).Int(); err != nil || v != i%5000 {
				t.Fatal(v, err)
			}
		}
	}
}

// TestTLSRedisCLI uses the proxy as a stock client does.
func TestTLSRedisCLI(t *testing.T) {
	p := newPKI(t)
	c := newCluster(t, 0, func(o *proxy.Options) { o.Listeners[0].TLS = p.listener() })
	_, port, _ := strings.Cut(c.addr, ":")
	cli := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command("redis-cli", append([]string{"-p", port, "--tls", "--cacert", p.ca.File,
			"--cert", p.client.CertFile, "--key", p.client.KeyFile}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	if got := cli("", "SET", "k", "v"); got != "OK\n" {
		t.Errorf("SET: %q", got)
	}
	if got := cli(strings.Repeat("INCR n\r\n", 20_000), "--pipe"); !strings.Contains(got, "errors: 0, replies: 20000") {
		t.Errorf("--pipe: %q", got)
	}
	if got := cli("", "GET", "n"); got != "20000\n" {
		t.Errorf("GET: %q", got)
	}
}

// TestTLSBadClients: who has no good certificate gets nowhere; the log names
// the cause and a metric counts it.
func TestTLSBadClients(t *testing.T) {
	p := newPKI(t)
	logs, seen := observer.New(zap.WarnLevel)
	reg := prometheus.NewRegistry()
	c := newCluster(t, 0, func(o *proxy.Options) {
		o.Listeners[0].TLS = p.listener()
		o.Logger, o.Registerer = zap.New(logs), reg
	})
	stranger := tlstest.NewCA(t, "stranger")
	with := func(cert ...tls.Certificate) func(*tls.Config) {
		return func(cfg *tls.Config) { cfg.Certificates = cert }
	}
	for _, tc := range []struct {
		reason string
		set    func(*tls.Config)
	}{
		{"certificate_missing", with()},
		{"certificate_expired", with(p.ca.IssueUntil(t, "late", time.Now().Add(-time.Hour)).Certificate)},
		{"certificate_untrusted", func(cfg *tls.Config) { // sent though the listener does not ask for this authority's
			cert := stranger.Issue(t, "stranger").Certificate
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		}},
		{"refused_by_peer", func(cfg *tls.Config) { cfg.RootCAs = stranger.Pool() }},
		{"protocol", func(cfg *tls.Config) { cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }},
	} {
		before := metric(t, reg, "sluice_proxy_tls_errors_total", "client", tc.reason)
		cfg := p.dialer()
		tc.set(cfg)
		if got := askTLS(t, c.addr, cfg); got != "" {
			t.Errorf("%s: the client got %q", tc.reason, got)
		}
		awaitMetric(t, reg, before+1, "sluice_proxy_tls_errors_total", "client", tc.reason)
	}
	plain := dialRaw(t, c.addr)
	plain.cmd("GET", "k")
	if b, _ := io.ReadAll(plain); bytes.Contains(b, []byte("$")) {
		t.Errorf("plain text got %q", b)
	}
	awaitMetric(t, reg, 1, "sluice_proxy_tls_errors_total", "client", "plaintext")
	if got := askTLS(t, c.addr, p.dialer()); got != "$-1\r\n" {
		t.Errorf("a good client gets %q", got)
	}
	if n := metric(t, reg, "sluice_proxy_commands_total", c.master.Addr(), "master", "read"); n != 1 {
		t.Errorf("the master has answered %v reads, want the one of the good client", n)
	}
	entry := seen.FilterMessage("TLS with a client failed").All()
	if len(entry) == 0 {
		t.Fatal("nothing in the log")
	}
	m := entry[0].ContextMap()
	if m["reason"] != "certificate_missing" || !strings.Contains(fmt.Sprint(m["client"]), "127.0.0.1:") || m["hint"] == nil || m["error"] == nil {
		t.Errorf("logged %v", m)
	}
}

// askTLS asks GET k and returns the answer, "" for none.
func askTLS(t *testing.T, addr string, cfg *tls.Config) string {
	t.Helper()
	cfg.ServerName = "localhost"
	d := net.Dialer{Timeout: 20 * time.Second}
	c, err := tls.DialWithDialer(&d, "tcp", addr, cfg)
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "GET k\r\n")
	b := make([]byte, 64)
	n, _ := c.Read(b)
	return string(b[:n])
}

// TestTLSBadNodes: a node whose certificate is not good, or that does not
// accept ours, is not used; log and metric say why.
func TestTLSBadNodes(t *testing.T) {
	p, stranger := newPKI(t), newPKI(t)
	port := freePort(t)
	node := startRedis(t, localredis.Options{Args: p.server.RedisArgs(p.ca, port)})
	late := p.ca.IssueUntil(t, "late", time.Now().Add(-time.Hour))
	latePort := freePort(t)
	startRedis(t, localredis.Options{Args: late.RedisArgs(p.ca, latePort)})
	for _, tc := range []struct {
		reason, master string
		cfg            *tls.Config
	}{
		{"certificate_untrusted", "127.0.0.1:" + port, stranger.dialer()},
		{"certificate_expired", "127.0.0.1:" + latePort, p.dialer()},
		{"certificate_name", "127.0.0.1:" + port, &tls.Config{RootCAs: p.ca.Pool(), ServerName: "elsewhere"}},
		{"refused_by_peer", "127.0.0.1:" + port, &tls.Config{RootCAs: p.ca.Pool()}},
		{"timeout", node.Addr(), p.dialer()}, // a plain port: Redis waits for the end of a line
	} {
		t.Run(tc.reason, func(t *testing.T) {
			logs, seen := observer.New(zap.WarnLevel)
			reg := prometheus.NewRegistry()
			srv, err := proxy.New(proxy.Options{
				Master: tc.master, TLS: tc.cfg, Logger: zap.New(logs), Registerer: reg, HealthTimeout: 5 * time.Second,
				ConnectTimeout: 2 * time.Second, Listeners: []proxy.Listener{{Network: "tcp", Address: "127.0.0.1:0"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := srv.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = srv.Close(context.Background()) }()
			awaitMetric(t, reg, 1, "sluice_proxy_tls_errors_total", "node", tc.reason)
			if srv.Status().Ready {
				t.Error("the node is used")
			}
			e := seen.FilterMessage("TLS with a node failed").All()
			if len(e) == 0 || e[0].ContextMap()["reason"] != tc.reason || e[0].ContextMap()["node"] != tc.master {
				t.Errorf("logged %v", e)
			}
		})
	}
}

// TestTLSReload: new certificates and a new authority hold for new connections;
// clients that are there notice nothing.
func TestTLSReload(t *testing.T) {
	old, next := newPKI(t), newPKI(t)
	var opt proxy.Options
	c := tlsCluster(t, old, func(o *proxy.Options) { opt = *o })
	dial := func(p *pki) (*tls.Conn, error) {
		cfg := p.dialer()
		cfg.ServerName = "localhost"
		return tls.Dial("tcp", c.addr, cfg)
	}
	tc, err := dial(old)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tc.Close() }()
	_ = tc.SetDeadline(time.Now().Add(60 * time.Second))
	stay := &raw{t, tc, bufio.NewReader(tc)}
	stay.do("+OK\r\n", "MULTI") // a state that would be lost with the connection
	opt.Listeners = []proxy.Listener{opt.Listeners[0]}
	opt.Listeners[0].TLS = next.listener()
	if err := c.srv.Reload(opt); err != nil {
		t.Fatal(err)
	}
	if got := askTLS(t, c.addr, old.dialer()); got != "" {
		t.Errorf("a client with the old authority got %q", got)
	}
	if got := askTLS(t, c.addr, next.dialer()); got != "$-1\r\n" {
		t.Errorf("a client with the new authority got %q", got)
	}
	stay.do("+QUEUED\r\n", "SET", "k", "v")
	stay.do("*1\r\n+OK\r\n", "EXEC")

	// The nodes get new certificates too: connections that stand go on, new ones
	// are made once both sides have them.
	for _, s := range append(c.replicas, c.master) {
		r := dialRaw(t, s.Addr())
		r.do("+OK\r\n", "CONFIG", "SET", "tls-cert-file", next.server.CertFile, "tls-key-file", next.server.KeyFile, "tls-ca-cert-file", next.ca.File)
	}
	opt.TLS = next.dialer()
	if err := c.srv.Reload(opt); err != nil {
		t.Fatal(err)
	}
	kill := dialRaw(t, c.master.Addr())
	kill.cmd("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	if _, err := kill.reply(); err != nil {
		t.Fatal(err)
	}
	fresh := c.client(t, func(o *redis.Options) { o.TLSConfig = next.dialer(); o.TLSConfig.ServerName = "localhost" })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for fresh.Set(ctx, "after", "reload", 0).Err() != nil {
		if ctx.Err() != nil {
			t.Fatal("no connection to the master with the new certificates")
		}
	}
}
