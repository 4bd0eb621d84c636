package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/psync"
)

const (
	resyncAskTimeout = 10 * time.Second // of one answer
	resyncPollEvery  = 200 * time.Millisecond
	resyncSayEvery   = time.Second
	// resyncMarkWait is how long a node may be in sync with the relay before it has
	// come for the full resync that is meant for it.
	resyncMarkWait = 10 * time.Second
)

// resyncCmd is `sluice resync`.
type resyncCmd struct {
	Node         string        `arg:"" help:"The replica." placeholder:"HOST:PORT"`
	Relay        string        `help:"Where the relay serves replicas, as the node reaches it." placeholder:"HOST:PORT" required:""`
	Back         bool          `help:"When it is in sync, send it back to the master that it had, by partial resync."`
	Partial      bool          `help:"A partial resync will do, if the relay can give one."`
	User         string        `help:"ACL user at the node and at the relay." placeholder:"NAME"`
	PasswordFile string        `help:"File whose first line is the password of both; or set ${passwordenv}." placeholder:"FILE"`
	Config       string        `short:"c" help:"Sluice's configuration: upstream's TLS, user and password hold for the node and the relay. What is given here goes before." placeholder:"FILE"`
	Timeout      time.Duration `help:"Give up after this (default ${default})." default:"1h" placeholder:"TIME"`
}

// resync is one run of the command.
type resync struct {
	*resyncCmd
	env      *env
	password string
	tls      *tls.Config // nil: plain TCP
	marked   string      // what the relay knows the node by, until it has begun the full resync
	markWait time.Duration
}

// Run does it and shows how it goes.
func (c *resyncCmd) Run(e *env) error {
	for _, addr := range []string{c.Node, c.Relay} {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return usageError{fmt.Errorf("%s: must be HOST:PORT", addr)}
		}
	}
	password, err := config.PasswordOf(c.PasswordFile)
	if err != nil {
		return usageError{err}
	}
	r := &resync{resyncCmd: c, env: e, password: password, markWait: resyncMarkWait}
	if err := r.configure(); err != nil {
		return usageError{err}
	}
	ctx, stop := e.untilSignal()
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("%s is not in sync after %s; it goes on trying by itself", c.Node, c.Timeout))
	defer cancel()
	return r.run(ctx)
}

// configure takes what the configuration says, if one is given.
func (r *resync) configure() error {
	if r.Config == "" {
		return nil
	}
	cfg, err := config.Load(r.Config, config.Flags{})
	if err != nil {
		return err
	}
	if r.password == "" {
		r.password = string(cfg.Upstream.Password)
		r.User = cmp.Or(r.User, cfg.Upstream.User)
	}
	r.tls, err = cfg.NodeTLS()
	return err
}

func (r *resync) run(ctx context.Context) error {
	before, err := r.info(ctx, r.Node)
	if err != nil {
		return err
	}
	relay, err := r.info(ctx, r.Relay)
	switch {
	case err != nil:
		return err
	case relay["sluice_relay"] != "1":
		return fmt.Errorf("%s is no Sluice relay: its INFO has no sluice_relay", r.Relay)
	case before["role"] != "slave":
		return fmt.Errorf("%s is a %s: its data would be replaced. If that is meant, make it a replica first (REPLICAOF)", r.Node, before["role"])
	case before["sluice_relay"] == "1":
		return fmt.Errorf("%s is a relay itself", r.Node)
	}
	master := net.JoinHostPort(before["master_host"], before["master_port"])
	if r.Back && master == r.Relay {
		return fmt.Errorf("--back: %s is at the relay already; there is no other master to send it back to", r.Node)
	}
	if !r.Partial {
		announced, err := r.announced(ctx)
		if err != nil {
			return err
		}
		if _, err := r.ask(ctx, r.Relay, "SLUICE", "RESYNC", announced); err != nil {
			return err
		}
		r.marked = announced
	}
	goal, _ := strconv.ParseInt(relay["slave_repl_offset"], 10, 64)
	r.env.printf("%s leaves %s for the relay %s\n", r.Node, master, r.Relay)
	if err := r.follow(ctx, r.Relay, goal); err != nil {
		return fmt.Errorf("%w; to send it back: REPLICAOF %s %s", err, before["master_host"], before["master_port"])
	}
	if !r.Back {
		return nil
	}
	r.env.printf("%s goes back to %s\n", r.Node, master)
	return r.follow(ctx, master, goal)
}

// announced returns where the node says that it can be reached, which is what the
// relay knows it by.
func (r *resync) announced(ctx context.Context) (string, error) {
	conn, err := r.dial(ctx, r.Node)
	if err != nil {
		return "", err
	}
	ip, port, err := net.SplitHostPort(conn.RemoteAddr().String())
	if errClose := conn.Close(); err != nil || errClose != nil {
		return "", errors.Join(err, errClose)
	}
	for setting, to := range map[string]*string{"replica-announce-ip": &ip, "replica-announce-port": &port} {
		v, err := r.ask(ctx, r.Node, "CONFIG", "GET", setting)
		if words := strings.Split(v, "\n"); err == nil && len(words) == 2 && words[1] != "" && words[1] != "0" {
			*to = words[1]
		}
	}
	return net.JoinHostPort(ip, port), nil
}

// follow makes the node a replica of addr and waits until its link is up and it has
// got as far as goal.
func (r *resync) follow(ctx context.Context, addr string, goal int64) error {
	host, port, _ := net.SplitHostPort(addr) // checked, or of INFO
	if _, err := r.ask(ctx, r.Node, "REPLICAOF", host, port); err != nil {
		return err
	}
	tick := time.NewTicker(resyncPollEvery) // INFO can only be asked for
	defer tick.Stop()
	var said string
	var saidAt, since time.Time // since: in sync, but not in full
	for begin := time.Now(); ; {
		i, err := r.info(ctx, r.Node)
		now := progress(i)
		if err != nil { // one that frees its old data, or loads, may not answer for long
			now = "no answer: " + err.Error()
		}
		offset, _ := strconv.ParseInt(i["slave_repl_offset"], 10, 64)
		here := net.JoinHostPort(i["master_host"], i["master_port"]) == net.JoinHostPort(host, port)
		if here && i["master_link_status"] == "up" && offset >= goal {
			if r.marked == "" {
				r.env.printf("%s is in sync with %s at offset %d after %.1f s\n", r.Node, addr, offset, time.Since(begin).Seconds())
				return nil
			}
			now = "waiting for the full resync to begin"
			if since, err = r.begun(ctx, since); err != nil {
				return err
			}
		}
		if now != said && time.Since(saidAt) >= resyncSayEvery {
			said, saidAt = now, time.Now()
			r.env.printf("  %s\n", now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begun asks the relay whether the full resync has begun, of a node that has been
// in sync since then. What the node has told so far may be of before.
func (r *resync) begun(ctx context.Context, since time.Time) (time.Time, error) {
	pending, err := r.ask(ctx, r.Relay, "SLUICE", "PENDING", r.marked)
	switch {
	case err != nil:
		return since, err
	case pending == "0":
		r.marked = ""
	case since.IsZero():
		return time.Now(), nil
	case time.Since(since) > r.markWait:
		return since, fmt.Errorf("%s is in sync with the relay, but not by a full resync: the relay knows it by another address than %s. "+
			"sluice status shows it; set replica-announce-ip and replica-announce-port at the node, and try again", r.Node, r.marked)
	}
	return since, nil
}

// progress says what INFO tells of a replica on its way.
func progress(i map[string]string) string {
	switch {
	case i["loading"] == "1":
		return "loading: " + i["loading_loaded_perc"] + "%"
	case i["master_sync_in_progress"] == "1":
		return fmt.Sprintf("receiving: %s of %s bytes", i["master_sync_read_bytes"], i["master_sync_total_bytes"])
	case i["master_link_status"] == "up":
		return "catching up: offset " + i["slave_repl_offset"]
	}
	return "link is " + i["master_link_status"]
}

// nodeError is an error that a node has answered with.
type nodeError struct{ addr, command, text string }

func (e nodeError) Error() string { return fmt.Sprintf("%s at %s: %s", e.command, e.addr, e.text) }

// info returns the fields of INFO.
func (r *resync) info(ctx context.Context, addr string) (map[string]string, error) {
	text, err := r.ask(ctx, addr, "INFO")
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":"); ok {
			fields[k] = v
		}
	}
	return fields, nil
}

func (r *resync) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, resyncAskTimeout) // the handshake's, too
	defer cancel()
	dial := new(net.Dialer).DialContext
	if r.tls != nil {
		dial = (&tls.Dialer{Config: r.tls}).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", addr, err)
	}
	return conn, conn.SetDeadline(time.Now().Add(resyncAskTimeout))
}

// ask asks one command on a connection of its own. A list comes as lines.
func (r *resync) ask(ctx context.Context, addr string, args ...string) (string, error) {
	conn, err := r.dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	replies := 1
	var out []byte
	if r.password != "" {
		auth := []string{"AUTH", r.password}
		if r.User != "" {
			auth = []string{"AUTH", r.User, r.password}
		}
		out, replies = resp.AppendCommand(out, auth...), 2
	}
	if _, err := conn.Write(resp.AppendCommand(out, args...)); err != nil {
		return "", fmt.Errorf("%s at %s: %w", args[0], addr, err)
	}
	in := psync.NewReader(conn)
	var reply string
	for i := range replies {
		reply, err = readReply(in, 0)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s at %s: %w", args[0], addr, err)
		case strings.HasPrefix(reply, "-") && i < replies-1:
			return "", nodeError{addr, "AUTH", reply[1:]}
		}
	}
	if strings.HasPrefix(reply, "-") {
		return "", nodeError{addr, args[0], reply[1:]}
	}
	return reply, nil
}

// readReply reads a reply of at most a megabyte: a line, with its sign if it is an
// error, a string, or the parts of a list, each on a line.
func readReply(r *bufio.Reader, depth int) (string, error) {
	line, err := psync.ReadLine(r)
	if err != nil || line == "" {
		return line, err
	}
	n, errNum := strconv.Atoi(line[1:])
	switch line[0] {
	case '$':
		if errNum != nil || n > 1<<20 {
			return "", fmt.Errorf("unexpected reply %q", line)
		}
		if n < 0 {
			return "", nil
		}
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return string(b[:n]), err
	case '*':
		if errNum != nil || n > 1000 || depth > 3 {
			return "", fmt.Errorf("unexpected reply %q", line)
		}
		var parts []string
		for range n {
			part, err := readReply(r, depth+1)
			if err != nil {
				return "", err
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, "\n"), nil
	case '+', ':':
		return line[1:], nil
	}
	return line, nil
}
