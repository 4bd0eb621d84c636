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
	"text/tabwriter"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/proxy"
)

const (
	statusTimeout = 5 * time.Second
	watchEvery    = time.Second
	maxStatusSize = 16 << 20 // bytes; a thousand nodes take some hundred kilobytes
	clearScreen   = "\x1b[H\x1b[2J"
)

// statusCmd is `sluice status`.
type statusCmd struct {
	Admin string `help:"The admin address of the running sluice." placeholder:"HOST:PORT" default:"${admin}"`
	JSON  bool   `name:"json" help:"Print /api/status as it is; with --watch one line each time."`
	Watch bool   `help:"Show it again each second until Ctrl-C."`
}

// Run prints the status once, or each second until a signal.
func (c *statusCmd) Run(e *env) error {
	ctx, stop := e.untilSignal()
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: statusTimeout}
	out, err := c.once(ctx, client)
	if err != nil || !c.Watch {
		e.printf("%s", out)
		return err
	}
	redraw := !c.JSON && isTerminal(e.stdout)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		switch {
		case redraw:
			out = clearScreen + out
		case !c.JSON:
			out += "\n"
		}
		e.printf("%s", out)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if out, err = c.once(ctx, client); ctx.Err() != nil {
			return nil
		} else if err != nil && c.JSON { // keep what reads standard output in JSON
			_, _ = fmt.Fprintln(e.stderr, err)
		} else if err != nil { // a restart, perhaps: go on watching
			out = err.Error() + "\n"
		}
	}
}

// once asks once and returns what to print.
func (c *statusCmd) once(ctx context.Context, client *http.Client) (string, error) {
	body, st, err := fetchStatus(ctx, client, c.Admin)
	if err != nil {
		return "", err
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

// fetchStatus asks the admin server at addr (HOST:PORT) for its status and
// returns it as sent and decoded.
func fetchStatus(ctx context.Context, client *http.Client, addr string) ([]byte, *proxy.Status, error) {
	page := "http://" + strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/") + admin.StatusPath
	fail := func(err error) ([]byte, *proxy.Status, error) {
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
	st := new(proxy.Status)
	if err := json.Unmarshal(body, st); err != nil {
		return fail(fmt.Errorf("its answer is no status; is that the admin address of a sluice? %w", err))
	}
	return body, st, nil
}

// statusTable renders the status for people.
func statusTable(st *proxy.Status) string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "ready %s   epoch %d   clients %d   listening on %s\n",
		yesNo(st.Ready), st.Epoch, st.Clients, strings.Join(st.Listeners, ", "))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NODE\tROLE\tUP\tREADS\tOFFSET\tLAG BYTES\tLAG SECONDS\tCOMMANDS\tREASON")
	for _, n := range st.Nodes {
		seconds := "-"
		if n.LagSeconds >= 0 {
			seconds = fmt.Sprintf("%.3f", n.LagSeconds)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", n.Address, n.Role, yesNo(n.Up), yesNo(n.Reads),
			known(n.Offset), known(n.LagBytes), seconds, n.Commands, n.Reason)
	}
	_ = w.Flush() // a strings.Builder does not fail
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
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
