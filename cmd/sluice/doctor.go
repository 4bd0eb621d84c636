package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/cmd/sluice/internal/doctor"
	"github.com/sluice-io/sluice/proxy"
)

// doctorCmd is `sluice doctor`. It takes the flags of serve, so that serve's
// command line or file says what to look at.
type doctorCmd struct {
	config.Flags
	Sample    time.Duration `help:"How long to measure the write rate (default ${default})." default:"5s" placeholder:"TIME"`
	WriteRate string        `help:"Check against so many bytes per second, as 20mb, in place of the measured rate." placeholder:"SIZE"`
	Outage    time.Duration `help:"The longest outage of a replica that must not cost a full sync (default ${default})." default:"60s" placeholder:"TIME"`
	Strict    bool          `help:"Exit with 1 for warnings, and for what could not be checked, too."`
	JSON      bool          `name:"json" help:"Print the report as JSON."`
}

// Run looks, prints the report, and fails if there are problems.
func (c *doctorCmd) Run(e *env) error {
	cfg, err := config.Load(c.Config, c.Flags)
	if err != nil {
		return usageError{err}
	}
	target, err := c.target(cfg)
	if err != nil {
		return usageError{err}
	}
	ctx, stop := e.untilSignal()
	defer stop()
	facts, err := doctor.Collect(ctx, target)
	if err != nil {
		return err
	}
	r := doctor.Examine(facts)
	text := r.Text()
	if c.JSON {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the report: %w", err)
		}
		text = string(b) + "\n"
	}
	e.printf("%s", text)
	if r.Problems > 0 || c.Strict && len(r.Findings) > 0 {
		return fmt.Errorf("problems %d, warnings %d, not checked %d", r.Problems, r.Warnings, r.Unknowns)
	}
	return nil
}

// target returns what to look at.
func (c *doctorCmd) target(cfg *config.Config) (doctor.Target, error) {
	t := doctor.Target{
		Master: cfg.Master, Replicas: cfg.Replicas, Sample: c.Sample, Outage: c.Outage,
		Login: doctor.Login{User: cfg.Upstream.User, Password: string(cfg.Upstream.Password), Timeout: doctorTimeout},
		Sentinel: doctor.SentinelTarget{Name: cfg.Sentinel.Name, Addrs: cfg.Sentinel.Addresses,
			Login: doctor.Login{User: cfg.Sentinel.User, Password: string(cfg.Sentinel.Password), Timeout: doctorTimeout}},
		Reads: readsReplicas(cfg),
	}
	var err error
	if t.Login.TLS, err = cfg.NodeTLS(); err != nil {
		return t, err
	}
	if t.Sentinel.Login.TLS, err = cfg.SentinelTLS(); err != nil {
		return t, err
	}
	if c.Sample <= 0 || c.Outage <= 0 {
		return t, errors.New("--sample and --outage must be more than 0s")
	}
	if c.WriteRate != "" {
		rate, err := config.ParseSize(c.WriteRate)
		if err != nil || rate <= 0 {
			return t, fmt.Errorf("--write-rate %s: must be bytes per second, as 500kb or 20mb", c.WriteRate)
		}
		t.Rate = float64(rate)
	}
	return t, nil
}

// doctorTimeout bounds a connection and each answer: a node that is busy with a
// snapshot answers late, and that is no reason to call it lost.
const doctorTimeout = 3 * time.Second

// readsReplicas reports whether a listener sends reads to replicas.
func readsReplicas(cfg *config.Config) bool {
	for _, l := range cfg.Listeners {
		consistency, from := cfg.Consistency, cfg.ReadFrom
		if l.Consistency != "" {
			consistency = l.Consistency
		}
		if l.ReadFrom != "" {
			from = l.ReadFrom
		}
		if consistency != proxy.ConsistencyMaster && from != proxy.ReadFromMaster {
			return true
		}
	}
	return false
}
