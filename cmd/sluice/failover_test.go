package main

import (
	"bytes"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/resp/localredis"
)

func TestFailoverCommand(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master})
	p, l := startServe(t, "--master", master.Addr())
	reads := `sluice_node_reads{node="` + replica.Addr() + `"} 1`
	within(t, "a replica that gets reads", func() bool { return strings.Contains(scrape(t, l.Admin), reads) })

	// A page in a browser can send this one, but not the header.
	resp, err := http.Post("http://"+l.Admin+admin.FailoverPath, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a request without the header: %s", resp.Status)
	}

	var out, errs bytes.Buffer
	e := &env{stdout: &out, stderr: &errs}
	if code := run([]string{"failover", "--admin", l.Admin, "--to", "127.0.0.1:1"}, e); code != exitRuntime || !strings.Contains(errs.String(), "is no replica of") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
	errs.Reset()
	if code := run([]string{"failover", "--admin", l.Admin, "--to", replica.Addr(), "--timeout", "20s"}, e); code != exitOK {
		t.Errorf("exit code %d, %s%s", code, out.String(), errs.String())
	}
	if !strings.Contains(out.String(), replica.Addr()+" is master; writes were held for ") || !strings.Contains(out.String(), "ok: ") {
		t.Errorf("output: %s", out.String())
	}
	if got, err := localredis.Do(replica.Addr(), "ROLE"); err != nil || got != "*3" {
		t.Errorf("the replica is no master: %q, %v", got, err)
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
