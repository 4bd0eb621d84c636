package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/cmd/sluice/internal/sdnotify"
	"github.com/sluice-io/sluice/resp/localredis"
)

// TestServiceManagerIsTold: ready once it listens, a reload's begin and end, and
// the end.
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv(sdnotify.Env, path)
	expect := func(want string) {
		t.Helper()
		b := make([]byte, 1000)
		_ = manager.SetReadDeadline(time.Now().Add(testTimeout))
		n, err := manager.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), want+"\n") {
			t.Fatalf("the service manager is told %q, %v; want %s", b[:n], err, want)
		}
	}
	p, l := startServe(t, "--master", startRedis(t, localredis.Options{}).Addr())
	expect("READY=1")
	if code := get(t, "http://"+l.Admin+"/healthz"); code != 200 {
		t.Errorf("/healthz is %d after READY", code)
	}
	p.signals <- syscall.SIGHUP
	expect("RELOADING=1")
	expect("READY=1")
	p.signals <- syscall.SIGTERM
	expect("STOPPING=1")
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestSystemdUnit has systemd-analyze, where there is one, read the unit and
// judge how far it is locked down.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	src, err := os.ReadFile("../../deploy/systemd/sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	const binary = "/usr/local/bin/sluice"
	if !bytes.Contains(src, []byte("ExecStart="+binary+" serve ")) {
		t.Fatalf("the unit does not start %s serve", binary)
	}
	// It looks whether the program is there; here it need not be installed.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "sluice.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(src, []byte(binary), []byte(self)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || bytes.Contains(out, []byte(unit)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit).CombinedOutput()
	if bytes.Contains(out, []byte("unrecognized option")) {
		t.Skip("systemd before 250 cannot judge a unit that is not loaded")
	}
	if err != nil {
		t.Errorf("the unit may do more than it should (exposure above 2.0): %v\n%s", err, out)
	}
	t.Log(regexp.MustCompile(`Overall exposure level.*`).FindString(string(out)))
}

// TestKubernetesConfigurations reads the configurations in the ConfigMaps of
// deploy/k8s as serve would. deploy/k8s/check checks the manifests themselves.
func TestKubernetesConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../deploy/k8s/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(src, []byte("\n---\n")) {
			var m struct {
				Kind string
				Data map[string]string
			}
			if err := yaml.Unmarshal(doc, &m); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if m.Kind != "ConfigMap" {
				continue
			}
			found++
			path := filepath.Join(t.TempDir(), "sluice.yml")
			if err := os.WriteFile(path, []byte(m.Data["sluice.yml"]), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(config.PasswordEnv, "secret") // of the Secret
			c, err := config.Load(path, config.Flags{})
			if err != nil {
				t.Errorf("%s: %v", file, err)
			} else if c.Admin.Listen != "0.0.0.0:9380" {
				t.Errorf("%s: the kubelet cannot ask %s", file, c.Admin.Listen)
			}
		}
	}
	if found != 3 {
		t.Errorf("%d ConfigMaps, want 3", found)
	}
}

// TestRulesAndDashboardKnowTheMetrics: a name that is misspelt, or gone, makes an
// alert that never fires.
func TestRulesAndDashboardKnowTheMetrics(t *testing.T) {
	page, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\|").FindAllSubmatch(page, -1) {
		known[string(m[1])] = true
	}
	for _, file := range []string{"prometheus/rules.yml", "prometheus/rules_test.yml", "grafana/sluice.json"} {
		src, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\bsluice_\w+`).FindAllString(string(src), -1)
		if len(names) < 20 {
			t.Errorf("only %d metrics in deploy/%s", len(names), file)
		}
		for _, name := range names {
			if !known[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("deploy/%s names %s, which deploy/METRICS.md does not", file, name)
			}
		}
	}
}
