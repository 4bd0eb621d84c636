package psync

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

const (
	// ReaderSize is the size in bytes of the buffers that NewReader makes.
	ReaderSize = 64 << 10
	// MaxLineBytes is the longest line that is taken for a reply. Redis reads
	// one into 256 bytes in the handshake and into 1024 before a payload
	// (receiveSynchronousResponse, readSyncBulkPayload).
	MaxLineBytes = 1024
)

// ErrLineTooLong says that a master sent more than [MaxLineBytes] without the
// end of a line: it does not speak this protocol.
var ErrLineTooLong = errors.New("line longer than 1024 bytes where a reply was expected")

// NewReader returns a buffered reader for all that comes from one master or
// replica.
func NewReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, ReaderSize) }

// ReadLine reads one line and returns it without its end, LF or CR LF
// (syncReadLine). An empty line is a keepalive. Errors are those of r,
// io.ErrUnexpectedEOF if the line had begun, and [ErrLineTooLong].
func ReadLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		c, err := r.ReadByte()
		switch {
		case err == io.EOF && len(line) > 0:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		case c == '\n':
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			return string(line), nil
		case len(line) > MaxLineBytes: // of which one may be the CR
			return "", ErrLineTooLong
		}
		line = append(line, c)
	}
}

// readReply reads the next line that is not a keepalive.
func readReply(r *bufio.Reader) (string, error) {
	for {
		line, err := ReadLine(r)
		if err != nil {
			return "", fmt.Errorf("read reply: %w", err)
		}
		if line != "" {
			return line, nil
		}
	}
}
