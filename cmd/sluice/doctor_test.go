package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/cmd/sluice/internal/doctor"
	"github.com/sluice-io/sluice/resp/localredis"
)

// TestDoctorExitCodes: 0 where nothing will hurt, 1 where something will, and
// with --strict for a warning too, 2 for a mistake on the command line.
func TestDoctorExitCodes(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	base := "doctor --sample 1ms --master " + master.Addr()
	for _, tc := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		// 1 MiB of backlog holds 100 s of 10 kB/s. The master has no replica: a warning.
		{base + " --write-rate 10k", exitOK, "0 problems, 1 warning, 0 not checked", ""},
		{base + " --write-rate 10k --strict", exitRuntime, "WARNING  replicas", "problems 0, warnings 1, not checked 0"},
		{base + " --write-rate 10k --outage 10m", exitRuntime, "PROBLEM  repl-backlog-size", "problems 1"},
		{base + " --write-rate lots", exitUsage, "", "--write-rate lots: must be bytes per second"},
		{base + " --write-rate 0", exitUsage, "", "--write-rate 0"},
		{"doctor --master h:1 --sample 0s", exitUsage, "", "--sample and --outage must be more than 0s"},
		{"doctor --sample 1ms", exitUsage, "", "master: is missing"},
		{"doctor --sample 1ms --master 127.0.0.1:1", exitRuntime, "", "127.0.0.1:1 cannot be asked: dial tcp"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			p := start(strings.Fields(tc.args)...)
			if code := p.wait(t); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if got := p.stdout.String(); !strings.Contains(got, tc.stdout) || (tc.stdout == "" && got != "") {
				t.Errorf("stdout %q lacks %q", got, tc.stdout)
			}
			if got := p.stderr.String(); !strings.Contains(got, tc.stderr) || (tc.stderr == "" && got != "") {
				t.Errorf("stderr %q lacks %q", got, tc.stderr)
			}
		})
	}

	p := start(append(strings.Fields(base), "--json", "--write-rate", "1g")...)
	if code := p.wait(t); code != exitRuntime {
		t.Errorf("exit code %d with a problem", code)
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil || r.Master != master.Addr() || r.Problems == 0 || r.Rate != 1e9 {
		t.Errorf("--json printed %s: %v", p.stdout, err)
	}
}
