package proxy_test

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
)

const headerErrors = "sluice_proxy_header_errors_total"

// proxied is a PROXY protocol header with a TLV.
func proxied(from string) string {
	a := netip.MustParseAddrPort(from)
	family, body := byte(0x11), a.Addr().AsSlice()
	if a.Addr().Is6() {
		family = 0x21
	}
	body = append(body, make([]byte, len(body))...)
	body = binary.BigEndian.AppendUint16(body, a.Port())
	body = append(body, 0, 80, 4, 0, 2, 'a', 'b')
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, family)
	return string(append(binary.BigEndian.AppendUint16(head, uint16(len(body))), body...))
}

const localHeader = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" // LOCAL: the peer speaks for itself

// balancedCluster is a master and a proxy that believes the loopback and wants
// logins: a refused one shows the client's address in the log.
func balancedCluster(t *testing.T, set func(*proxy.Options)) (*cluster, *prometheus.Registry, *observer.ObservedLogs) {
	logs, seen := observer.New(zap.WarnLevel)
	reg := prometheus.NewRegistry()
	c := newCluster(t, 0, func(o *proxy.Options) {
		o.Logger, o.Registerer = zap.New(logs), reg
		o.Listeners[0].ProxyProtocol = true
		o.Listeners[0].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
		o.Auth, o.Users = proxy.AuthStatic, []proxy.User{{Name: "app", Hashes: [][32]byte{sha256.Sum256([]byte("secret"))}}}
		if set != nil {
			set(o)
		}
	})
	return c, reg, seen
}

// TestProxyProtocol: the header may come in pieces, or with the first commands;
// no byte behind it is lost, and the log names the client that it names.
func TestProxyProtocol(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c, reg, seen := balancedCluster(t, func(o *proxy.Options) {
		o.Listeners = append(o.Listeners, proxy.Listener{Network: "unix", Address: path, ProxyProtocol: true})
	})
	const incrs = 300
	follows := string(resp.AppendCommand(nil, "AUTH", "app", "secret")) + strings.Repeat(string(resp.AppendCommand(nil, "INCR", "n")), incrs)
	total := 0
	for i, head := range []string{proxied("192.0.2.7:4711"), proxied("[2001:db8::7]:4712"), localHeader} {
		cuts := []int{0, 1, 15, len(head) - 1, len(head), len(head) + 5}
		for _, cut := range cuts {
			r := dialRaw(t, c.addr)
			all := head + follows
			r.send(all[:cut])
			r.send(all[cut:])
			r.expect("+OK\r\n")
			for range incrs {
				total++
				r.expect(fmt.Sprintf(":%d\r\n", total))
			}
			_ = r.Close()
		}
		if n := metric(t, reg, "sluice_proxy_connections_total"); n != float64(len(cuts)*(i+1)) {
			t.Fatalf("%v clients were accepted, want %d", n, len(cuts)*(i+1))
		}
	}
	for _, tc := range []struct{ network, address, head, want string }{
		{"tcp", c.addr, proxied("192.0.2.7:4711"), "192.0.2.7:4711"},
		{"unix", path, proxied("[2001:db8::7]:4712"), "[2001:db8::7]:4712"},
		{"tcp", c.addr, localHeader, "127.0.0.1:"},
	} {
		named := func() bool {
			for _, e := range seen.FilterMessage("a client's login has failed").All() {
				if strings.HasPrefix(fmt.Sprint(e.ContextMap()["client"]), tc.want) {
					return true
				}
			}
			return false
		}
		// The log takes a line a second.
		for deadline := time.Now().Add(20 * time.Second); !named(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the log never named %s: %v", tc.want, seen.All())
			}
			conn, err := net.Dial(tc.network, tc.address)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, tc.head+"AUTH app wrong\r\nQUIT\r\n"); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(conn); !strings.HasPrefix(string(b), "-WRONGPASS") {
				t.Fatalf("%q, %v", b, err)
			}
			_ = conn.Close()
		}
	}
}

// headerFirst sends a header in one segment with what TLS sends first.
type headerFirst struct {
	net.Conn
	head string
}

func (c *headerFirst) Write(b []byte) (int, error) {
	if c.head == "" {
		return c.Conn.Write(b)
	}
	_, err := c.Conn.Write(append([]byte(c.head), b...))
	c.head = ""
	return len(b), err
}

// TestProxyProtocolBeforeTLS: the handshake, and all that it protects, follows
// the header.
func TestProxyProtocolBeforeTLS(t *testing.T) {
	p := newPKI(t)
	c, reg, seen := balancedCluster(t, func(o *proxy.Options) { o.Listeners[0].TLS = p.listener() })
	dial := func(head string, cfg *tls.Config) *raw {
		cfg.ServerName = "localhost"
		plain := dialRaw(t, c.addr)
		conn := tls.Client(&headerFirst{plain.Conn, head}, cfg)
		return &raw{t, conn, bufio.NewReader(conn)}
	}
	for _, head := range []string{proxied("192.0.2.7:4711"), localHeader} {
		r := dial(head, p.dialer())
		r.do("+OK\r\n", "AUTH", "app", "secret")
		r.do("+OK\r\n", "SET", "k", head)
		r.do(fmt.Sprintf("$%d\r\n%s\r\n", len(head), head), "GET", "k")
	}
	r := dial(proxied("192.0.2.8:1"), &tls.Config{RootCAs: p.ca.Pool()})
	r.cmd("PING")
	if got, err := r.reply(); err == nil {
		t.Errorf("without a certificate: %q", got)
	}
	awaitMetric(t, reg, 1, "sluice_proxy_tls_errors_total", "client", "certificate_missing")
	if e := seen.FilterMessage("TLS with a client failed").All(); len(e) != 1 || e[0].ContextMap()["client"] != "192.0.2.8:1" {
		t.Errorf("the log says %v", e)
	}
}

// TestProxyProtocolRefused: whoever has no good header, or no right to one, is
// closed without an answer, counted and logged; a reload changes who is trusted.
func TestProxyProtocolRefused(t *testing.T) {
	var opt proxy.Options
	c, reg, seen := balancedCluster(t, func(o *proxy.Options) { opt = *o })
	opt.Listeners = slices.Clone(opt.Listeners)
	good := proxied("192.0.2.7:4711")
	for _, tc := range []struct{ reason, send string }{
		{"missing", "PING\r\n"},
		{"version_1", "PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\nPING\r\n"},
		{"malformed", good[:12] + "\x22" + good[13:] + "PING\r\n"},
		{"too_large", good[:14] + "\xff\xff" + strings.Repeat("x", 100)},
		{"disconnected", good[:20]},
		{"disconnected", ""},
	} {
		before := metric(t, reg, headerErrors, tc.reason)
		r := dialRaw(t, c.addr)
		r.send(tc.send)
		if tc.reason == "disconnected" {
			_ = r.Conn.(*net.TCPConn).CloseWrite()
		}
		if b, _ := io.ReadAll(r); len(b) > 0 { // the error may be a reset, for what was not read
			t.Errorf("%s: answered %q", tc.reason, b)
		}
		awaitMetric(t, reg, before+1, headerErrors, tc.reason)
	}
	e := seen.FilterMessage("a client has no good PROXY protocol header").All()
	if len(e) == 0 || len(e) > 5 {
		t.Fatalf("%d lines in the log", len(e))
	}
	if m := e[0].ContextMap(); m["reason"] != "missing" || !strings.HasPrefix(fmt.Sprint(m["peer"]), "127.0.0.1:") || m["hint"] == nil || m["error"] == nil {
		t.Errorf("the log says %v", m)
	}

	opt.Listeners[0].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if err := c.srv.Reload(opt); err != nil {
		t.Fatal(err)
	}
	r := dialRaw(t, c.addr)
	r.send(good + "PING\r\n")
	if b, _ := io.ReadAll(r); len(b) > 0 {
		t.Errorf("a peer that is not trusted is answered %q", b)
	}
	awaitMetric(t, reg, 1, headerErrors, "untrusted")
	if n := metric(t, reg, "sluice_proxy_connections_total"); n != 0 {
		t.Errorf("%v clients were served", n)
	}
}

// TestProxyProtocolClose: clients whose header is awaited do not hold up the end.
func TestProxyProtocolClose(t *testing.T) {
	c, reg, seen := balancedCluster(t, nil)
	var waiting []*raw
	for range 3 {
		r := dialRaw(t, c.addr)
		r.send(proxied("192.0.2.7:4711")[:20])
		waiting = append(waiting, r)
	}
	awaitMetric(t, reg, 3, "sluice_proxy_clients")
	if err := c.srv.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range waiting {
		if b, err := io.ReadAll(r); len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
	}
	if n := seen.FilterMessage("a client has no good PROXY protocol header").Len(); n > 0 {
		t.Errorf("%d clients are blamed for the end of the server", n)
	}
}

// TestProxyProtocolOptions: what would trust nobody, or cannot hold, is refused.
func TestProxyProtocolOptions(t *testing.T) {
	nets := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for want, l := range map[string]proxy.Listener{
		"needs trusted proxies":           {Network: "tcp", Address: ":0", ProxyProtocol: true},
		"without the PROXY protocol":      {Network: "tcp", Address: ":0", TrustedProxies: nets},
		"its permissions say who may con": {Network: "unix", Address: "s", ProxyProtocol: true, TrustedProxies: nets},
	} {
		if _, err := proxy.New(proxy.Options{Master: "h:1", Listeners: []proxy.Listener{l}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", l, err, want)
		}
	}
}
