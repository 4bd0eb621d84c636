package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
)

// failoverCmd is `sluice failover`.
type failoverCmd struct {
	Admin   string        `help:"The admin address of the running sluice, on this machine." placeholder:"HOST:PORT" default:"${admin}"`
	To      string        `help:"The replica that is to be master; by default the one that is furthest. Not with Sentinel, which chooses." placeholder:"HOST:PORT"`
	Timeout time.Duration `help:"For all of it: writes are held no longer, and then everything stays as it was." default:"10s"`
}

// Run asks the running sluice for a planned failover and prints its steps. A
// signal ends it: then everything stays as it was, if it still can.
func (c *failoverCmd) Run(e *env) error {
	ctx, stop := e.untilSignal()
	defer stop()
	page := adminURL(c.Admin, admin.FailoverPath)
	form := url.Values{"to": {c.To}, "timeout": {c.Timeout.String()}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, page+"?"+form.Encode(), nil)
	if err != nil {
		return usageError{fmt.Errorf("--admin %s: must be HOST:PORT", c.Admin)}
	}
	req.Header.Set(admin.FailoverHeader, "yes")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no answer from sluice at %s: %w; is it running there? Choose its admin address by --admin HOST:PORT", c.Admin, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("sluice at %s answers %s: %s", c.Admin, resp.Status, strings.TrimSpace(string(text)))
	}
	last := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		last = lines.Text()
		if text, failed := strings.CutPrefix(last, admin.FailoverFailed); failed {
			return errors.New(text)
		}
		e.printf("%s\n", last)
	}
	if !strings.HasPrefix(last, admin.FailoverOK) {
		return errors.New("the answer ended before the failover did; sluice status shows who is master")
	}
	return nil
}
