package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
)

const (
	statusTimeout = 5 * time.Second
	watchEvery    = time.Second
	maxStatusSize = 16 << 20 // bytes; a thousand nodes take some hundred kilobytes
)

// statusCmd is `sluice status`.
type statusCmd struct {
	Admin string `help:"The admin address of the running sluice." placeholder:"HOST:PORT" default:"${admin}"`
	JSON  bool   `name:"json" help:"Print /api/status as it is; with --watch one line each time."`
	Watch bool   `help:"Show it again each second until q or Ctrl-C."`
}

// Run prints the status once, or each second until a signal.
func (c *statusCmd) Run(e *env) error {
	ctx, stop := e.untilSignal()
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: statusTimeout}
	terminal := terminalOf(e.stdout)
	out, err := c.once(ctx, client, terminal)
	if err != nil || !c.Watch {
		e.printf("%s", out)
		return err
	}
	if terminal != nil && !c.JSON {
		return c.watchTerminal(ctx, e, client, terminal)
	}
	return c.watchPipe(ctx, e, client, out)
}

// watchPipe prints out, and then one status after the other.
func (c *statusCmd) watchPipe(ctx context.Context, e *env, client *http.Client, out string) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if !c.JSON {
			out += "\n"
		}
		e.printf("%s", out)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var err error
		if out, err = c.once(ctx, client, nil); ctx.Err() != nil {
			return nil
		} else if err != nil && c.JSON { // keep what reads standard output in JSON
			_, _ = fmt.Fprintln(e.stderr, err)
		} else if err != nil { // a restart, perhaps: go on watching
			out = err.Error() + "\n"
		}
	}
}

// once asks once and returns what to print, on terminal if that is not nil.
func (c *statusCmd) once(ctx context.Context, client *http.Client, terminal *os.File) (string, error) {
	body, st, err := fetchStatus(ctx, client, c.Admin)
	if err != nil {
		return "", err
	}
	if !c.JSON && terminal != nil {
		l := terminalLook(terminal)
		l.height, l.events = 0, onceEvents
		return statusScreen(st, l), nil
	}
	if !c.JSON {
		return statusTable(st), nil
	}
	var b bytes.Buffer
	if c.Watch {
		err = json.Compact(&b, body)
	} else {
		err = json.Indent(&b, body, "", "  ")
	}
	return strings.TrimRight(b.String(), "\n") + "\n", err
}

// adminURL returns the address of a page of the admin server at addr.
func adminURL(addr, path string) string {
	return "http://" + strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/") + path
}

// fetchStatus asks the admin server at addr (HOST:PORT) for its status and
// returns it as sent and decoded.
func fetchStatus(ctx context.Context, client *http.Client, addr string) ([]byte, *admin.Status, error) {
	page := adminURL(addr, admin.StatusPath)
	fail := func(err error) ([]byte, *admin.Status, error) {
		return nil, nil, fmt.Errorf("get %s: %w", page, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("--admin %s: must be HOST:PORT", addr)}
	}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // its text repeats method and address
			err = ue.Err
		}
		return nil, nil, fmt.Errorf("no answer from sluice at %s: %w; is it running there? Choose its admin address by --admin HOST:PORT", addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatusSize))
	if err != nil {
		return fail(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("it answers %s; is that the admin address of a sluice?", resp.Status))
	}
	st := new(admin.Status)
	if err := json.Unmarshal(body, st); err != nil {
		return fail(fmt.Errorf("its answer is no status; is that the admin address of a sluice? %w", err))
	}
	return body, st, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// known returns the number, or "-" for the -1 of what is not known.
func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// isTerminal reports whether w is a character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
