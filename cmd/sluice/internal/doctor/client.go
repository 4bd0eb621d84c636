package doctor

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// settings are those that the checks look at. None of them holds a secret.
var settings = []string{
	"client-output-buffer-limit", "min-replicas-to-write", "repl-diskless-sync", "repl-diskless-sync-delay",
	"repl-ping-replica-period", "repl-timeout", "replica-serve-stale-data", "save",
}

// clockTries is how often TIME is asked; the quickest answer counts.
const clockTries = 5

// client asks one node. One goroutine at a time may use it.
type client struct {
	addr  string
	sock  net.Conn
	redis *redis.Client
}

// Login says how to connect to the nodes.
type Login struct {
	User, Password string        // "" for none
	TLS            *tls.Config   // nil for plain TCP
	Timeout        time.Duration // for a connection, and for each answer
}

// connect opens the one socket that the client uses: go-redis's pool would dial
// again behind our back, and write of it to standard error.
func (l Login) connect(ctx context.Context, addr string) (*client, error) {
	d := net.Dialer{Timeout: l.Timeout}
	sock, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if l.TLS != nil {
		sock = tls.Client(sock, l.tlsFor(addr)) // the handshake comes with the first write
	}
	handed := false
	return &client{addr: addr, sock: sock, redis: redis.NewClient(&redis.Options{
		Addr: addr, Username: l.User, Password: l.Password,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			if handed {
				return nil, errLost
			}
			handed = true
			return bareConn{sock}, nil
		},
		ReadTimeout: l.Timeout, WriteTimeout: l.Timeout,
		Protocol: 2, PoolSize: 1, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, ConnMaxIdleTime: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})}, nil
}

// errLost is what go-redis gets when it wants to dial again.
var errLost = errors.New("connection lost")

// bareConn hides the socket from go-redis, which would check a system
// connection before each use and dial again.
type bareConn struct{ net.Conn }

// tlsFor returns the configuration with the name to verify.
func (l Login) tlsFor(addr string) *tls.Config {
	if host, _, err := net.SplitHostPort(addr); err == nil && l.TLS.ServerName == "" {
		named := l.TLS.Clone()
		named.ServerName = host
		return named
	}
	return l.TLS
}

func (c *client) close() { // nothing is left to be told by an error
	_ = c.redis.Close()
	_ = c.sock.Close()
}

// refused reports whether err is an answer of the node, and no loss of it.
func refused(err error) bool {
	var e redis.Error
	return errors.As(err, &e) && !noLogin(err)
}

// noLogin reports whether the node lets us ask nothing at all.
func noLogin(err error) bool {
	for _, code := range []string{"NOAUTH", "WRONGPASS", "ERR invalid password", "ERR AUTH", "ERR Client sent AUTH", "DENIED"} {
		if strings.HasPrefix(err.Error(), code) {
			return true
		}
	}
	return false
}

// info asks for INFO's default sections.
func (c *client) info(ctx context.Context) (string, error) {
	text, err := c.redis.Do(ctx, "INFO").Text()
	if err != nil {
		return "", fmt.Errorf("INFO at %s: %w", c.addr, err)
	}
	return text, nil
}

// look fills in what a node says besides INFO. What it refuses is noted in n;
// an error says that the node is lost.
func (c *client) look(ctx context.Context, n *Node) error {
	for _, ask := range []func(context.Context, *Node) error{c.settings, c.users, c.clock} {
		if err := ask(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) settings(ctx context.Context, n *Node) error {
	n.Settings = Fields{}
	for _, name := range settings {
		pair, err := c.redis.Do(ctx, "CONFIG", "GET", name).StringSlice()
		switch {
		case refused(err):
			n.ConfErr = err.Error()
			return nil
		case err != nil:
			return err
		}
		if len(pair) == 2 {
			n.Settings[name] = pair[1]
		}
	}
	return nil
}

// users keeps a fingerprint of each user's rules: the list holds hashes of
// passwords.
func (c *client) users(ctx context.Context, n *Node) error {
	lines, err := c.redis.Do(ctx, "ACL", "LIST").StringSlice()
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "ERR unknown command"):
		return nil // before 6.0 there are none
	case refused(err):
		n.ACLErr = err.Error()
		return nil
	case err != nil:
		return err
	}
	n.Users = map[string]string{}
	for _, line := range lines {
		if words := strings.SplitN(line, " ", 3); len(words) == 3 && words[0] == "user" {
			n.Users[words[1]] = fmt.Sprintf("%x", sha256.Sum256([]byte(words[2])))
		}
	}
	return nil
}

func (c *client) clock(ctx context.Context, n *Node) error {
	for range clockTries {
		before := time.Now()
		at, err := c.redis.Time(ctx).Result()
		trip := time.Since(before)
		switch {
		case refused(err):
			return nil
		case err != nil:
			return err
		}
		if !n.ClockKnown || trip/2 < n.ClockError {
			n.ClockKnown, n.ClockError, n.Clock = true, trip/2, at.Sub(before.Add(trip/2))
		}
	}
	return nil
}
