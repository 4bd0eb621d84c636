package topology

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ObserverName is what CLIENT LIST shows of our connections.
const ObserverName = "sluice-observer"

// errConnLost is what go-redis gets when it wants to dial again: a connection
// here is one socket, and its loss is what an observer is there to notice.
var errConnLost = errors.New("connection lost")

// dialFunc opens a socket to HOST:PORT.
type dialFunc func(ctx context.Context, addr string) (net.Conn, error)

// connection is one socket to one node. go-redis speaks the protocol on it,
// but neither dials nor retries: its pool would do both behind our back, in
// goroutines that nobody waits for.
//
// One goroutine at a time may use it. Every call is bounded by its context
// and ends at once when the context given to connect is cancelled.
type connection struct {
	client  *redis.Client
	sock    net.Conn
	unhook  func() bool
	runID   string // of the server process (INFO server); empty where INFO is refused
	version string // redis_version of INFO server, likewise
}

// connect dials addr, authenticates and names the connection, all within
// Config.ConnectTimeout.
func connect(ctx context.Context, cfg *Config, dial dialFunc, addr string) (c *connection, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil && cfg.OnError != nil {
			cfg.OnError(addr, err)
		}
	}()
	limited, cancel := context.WithTimeout(ctx, cfg.limits().ConnectTimeout)
	defer cancel()
	sock, err := dial(limited, addr)
	if err != nil {
		return nil, err
	}
	stream, err := secure(limited, cfg, sock, addr)
	if err != nil {
		return nil, err
	}
	c = newConnection(ctx, cfg, sock, stream, addr)
	replies, err := c.ask(limited, []any{"CLIENT", "SETNAME", ObserverName}, []any{"INFO", "server"})
	if err != nil {
		c.close()
		return nil, fmt.Errorf("greet %s: %w", addr, err)
	}
	// Neither is needed: a user that may not do it is told so by ROLE and INFO.
	if text, ok := replies[1].value.(string); ok {
		c.runID, c.version = infoField(text, "run_id"), infoField(text, "redis_version")
	}
	return c, nil
}

// secure returns sock with TLS over it where cfg has TLS. On an error sock is
// closed.
func secure(ctx context.Context, cfg *Config, sock net.Conn, addr string) (net.Conn, error) {
	if cfg.TLS == nil {
		return sock, nil
	}
	t := cfg.TLS()
	if t == nil {
		return sock, nil
	}
	stream, err := tlsClient(ctx, sock, t, addr)
	if err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", addr, err)
	}
	return stream, nil
}

// newConnection has go-redis speak on stream, which is sock or TLS over it.
// sock is closed with ctx.
func newConnection(ctx context.Context, cfg *Config, sock, stream net.Conn, addr string) *connection {
	handed := false
	c := &connection{sock: sock, unhook: context.AfterFunc(ctx, func() { _ = sock.Close() })}
	c.client = redis.NewClient(&redis.Options{
		Addr: addr,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			if handed {
				return nil, errConnLost
			}
			handed = true
			return bareConn{stream}, nil
		},
		Protocol: 2, Username: cfg.User, Password: cfg.Password,
		MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
		PoolSize: 1, MaxActiveConns: 1, PipelinePoolSize: -1, ConnMaxIdleTime: -1,
		ReadBufferSize: 4 << 10, WriteBufferSize: 1 << 10,
		ReadTimeout: -1, WriteTimeout: -1, // the deadline of a call's context alone
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	return c
}

// close closes the socket.
func (c *connection) close() {
	c.unhook()
	_ = c.client.Close()
	_ = c.sock.Close()
}

// reply is a node's answer: a value, or an error reply.
type reply struct {
	value   any
	refusal string // the error reply's text, "" for none
}

// ask sends commands in one pipeline. err says that the connection is of no
// more use; an error reply is no err.
func (c *connection) ask(ctx context.Context, commands ...[]any) ([]reply, error) {
	pipe := c.client.Pipeline()
	cmds := make([]*redis.Cmd, len(commands))
	for i, words := range commands {
		cmds[i] = pipe.Do(ctx, words...)
	}
	_, execErr := pipe.Exec(ctx)
	replies := make([]reply, len(cmds))
	for i, cmd := range cmds {
		value, err := cmd.Result()
		var refused redis.Error
		switch {
		case err == nil:
			replies[i].value = value
		case errors.As(err, &refused):
			replies[i].refusal = err.Error()
			execErr = nil // it is the first of these
		default:
			return nil, err
		}
	}
	// What is left is not of a command: HELLO or AUTH were refused.
	if execErr != nil {
		return nil, execErr
	}
	return replies, nil
}

// bareConn hides what else a socket can do from go-redis: seeing a system
// connection it would check that it is still open before each use, and dial
// again by itself if not.
type bareConn struct{ net.Conn }

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: time.Minute}
	return d.DialContext(ctx, "tcp", addr)
}

// tlsClient makes a TLS connection of sock.
func tlsClient(ctx context.Context, sock net.Conn, cfg *tls.Config, addr string) (net.Conn, error) {
	if cfg.ServerName == "" {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
	}
	c := tls.Client(sock, cfg)
	return c, c.HandshakeContext(ctx)
}

// splitAddr checks that addr is HOST:PORT.
func splitAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("node address %q: %w", addr, err)
	}
	if n, err := net.LookupPort("tcp", port); host == "" || err != nil || n == 0 {
		return fmt.Errorf("node address %q: want HOST:PORT", addr)
	}
	return nil
}
