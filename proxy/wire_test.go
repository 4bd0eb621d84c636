package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/sluice-io/sluice/resp"
)

// wire is a connection for goroutines that must not end the test: it returns
// errors, and error replies as values.
type wire struct {
	net.Conn
	r   *bufio.Reader
	out []byte
}

// replyError is an error reply without the leading '-'.
type replyError string

func (e replyError) Error() string { return string(e) }

func dialWire(addr string) (*wire, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, r: bufio.NewReader(c)}, nil
}

// pipeline sends commands in one piece and reads a reply to each: nil, int64,
// string, []any or replyError.
func (w *wire) pipeline(cmds ...[]string) ([]any, error) {
	if err := w.post(cmds...); err != nil {
		return nil, err
	}
	replies := make([]any, len(cmds))
	for i := range replies {
		var err error
		if replies[i], err = w.read(); err != nil {
			return nil, fmt.Errorf("read reply of %v: %w", cmds[i], err)
		}
	}
	return replies, nil
}

// post sends commands in one piece.
func (w *wire) post(cmds ...[]string) error {
	w.out = w.out[:0]
	for _, c := range cmds {
		w.out = resp.AppendCommand(w.out, c...)
	}
	_ = w.SetDeadline(time.Now().Add(20 * time.Second))
	_, err := w.Write(w.out)
	return err
}

// do is pipeline for one command; an error reply is an error.
func (w *wire) do(args ...string) (any, error) {
	replies, err := w.pipeline(args)
	if err != nil {
		return nil, err
	}
	if e, ok := replies[0].(replyError); ok {
		return nil, e
	}
	return replies[0], nil
}

func (w *wire) read() (any, error) {
	line, err := w.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 {
		return nil, fmt.Errorf("reply %q", line)
	}
	text := line[1 : len(line)-2]
	switch line[0] {
	case '+':
		return text, nil
	case '-':
		return replyError(text), nil
	case ':', '$', '*':
	default:
		return nil, fmt.Errorf("reply %q", line)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return nil, err
	case line[0] == ':':
		return n, nil
	case n < 0:
		return nil, nil
	case line[0] == '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = w.read(); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(w.r, b); err != nil {
		return nil, err
	}
	return string(b[:n]), nil
}

// isUncertain reports whether a write that failed with err may have run.
func isUncertain(err error) bool {
	var e replyError
	if errors.As(err, &e) {
		return len(e) > 17 && e[:17] == "SLUICE_UNCERTAIN "
	}
	return true // the connection is gone
}
