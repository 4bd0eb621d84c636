package psync

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

var testMark = strings.Repeat("0123456789abcdef", 3)[:MarkLen]

func TestPayloadHeader(t *testing.T) {
	for line, want := range map[string]PayloadHeader{
		"$0":               {},
		"$123":             {Size: 123},
		"$EOF:" + testMark: {Mark: testMark},
	} {
		got, err := ParsePayloadHeader(line)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", line, got, err)
		}
		if wire := string(got.Append(nil)); wire != line+"\r\n" {
			t.Errorf("%q is written as %q", line, wire)
		}
	}
	for _, line := range []string{"", "$", "$-1", "$x", "$EOF:", "$EOF:" + testMark[1:], "$EOF:" + testMark + "x", "+OK", "*1", "$01", "$12 ", "REDIS0010"} {
		if h, err := ParsePayloadHeader(line); !errors.Is(err, ErrPayloadHeader) {
			t.Errorf("%q: %v, %v", line, h, err)
		}
	}
	var refused Refused
	if _, err := ReadPayloadHeader(NewReader(strings.NewReader("\n\n-ERR BGSAVE failed\r\n"))); !errors.As(err, &refused) || refused.Code != "ERR" {
		t.Errorf("aborted: %v", err)
	}
	r := NewReader(strings.NewReader("\n\n\n$5\r\nhello"))
	if h, err := ReadPayloadHeader(r); err != nil || h.Size != 5 || r.Buffered() != 5 {
		t.Errorf("behind newlines: %v, %v, %d bytes left", h, err, r.Buffered())
	}
	if a, b := NewPayloadMark(), NewPayloadMark(); a == b || len(a.Mark) != MarkLen || !a.Marked() {
		t.Errorf("marks %v and %v", a, b)
	}
}

// pieces is a reader that gives one piece at a time.
type pieces [][]byte

func (p *pieces) Read(b []byte) (int, error) {
	for len(*p) > 0 && len((*p)[0]) == 0 {
		*p = (*p)[1:]
	}
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	(*p)[0] = (*p)[0][n:]
	return n, nil
}

// readPayload reads header, payload and what follows.
func readPayload(src io.Reader, bufSize int) (payload, rest []byte, err error) {
	r := bufio.NewReaderSize(src, bufSize)
	h, err := ReadPayloadHeader(r)
	if err != nil {
		return nil, nil, err
	}
	p := NewPayloadReader(r, h)
	if payload, err = io.ReadAll(p); err != nil {
		return payload, nil, err
	}
	if p.N() != int64(len(payload)) {
		return nil, nil, errors.New("N is not the payload's size")
	}
	if n, err := p.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("reading on at the end gives more")
	}
	rest, err = io.ReadAll(r)
	return payload, rest, err
}

// Both kinds, cut at every place: in front of the header, in it, in the mark,
// and in the stream behind.
func TestPayloadCutAnywhere(t *testing.T) {
	const stream = "*1\r\n$4\r\nPING\r\n"
	for _, payload := range []string{"", "x", "REDIS0010 short", strings.Repeat("0123456789abcdef", 20), testMark[1:] + testMark[:39] + testMark[1:]} {
		for _, h := range []PayloadHeader{{Size: int64(len(payload))}, {Mark: testMark}} {
			if h.Marked() && strings.Contains(payload+testMark[:39], testMark) {
				continue // would end earlier, by the rules
			}
			wire := []byte("\n\n" + string(h.Append(nil)) + payload + h.Mark + stream)
			for i := range len(wire) + 1 {
				for _, size := range []int{MarkLen, 64, ReaderSize} {
					got, rest, err := readPayload(&pieces{wire[:i], wire[i:]}, size)
					if err != nil || string(got) != payload || string(rest) != stream {
						t.Fatalf("%v cut at %d, buffer %d: %q, then %q, %v", h, i, size, got, rest, err)
					}
				}
			}
			got, rest, err := readPayload(iotest.OneByteReader(bytes.NewReader(wire)), MarkLen)
			if err != nil || string(got) != payload || string(rest) != stream {
				t.Fatalf("%v byte by byte: %q, then %q, %v", h, got, rest, err)
			}
			// A connection that ends early is never taken for the end.
			for i := len(wire) - len(stream) - 1; i > 2; i-- {
				if got, _, err := readPayload(bytes.NewReader(wire[:i]), ReaderSize); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%v ends at %d: %q, %v", h, i, got, err)
				}
			}
		}
	}
}

// What has arrived and cannot be the mark is given out at once, without waiting
// for more: a slow diskless transfer must not look stalled.
func TestPayloadHoldsBackOnlyAMark(t *testing.T) {
	r, w := io.Pipe()
	late := time.AfterFunc(10*time.Second, func() { _ = w.CloseWithError(errors.New("held back more")) })
	defer late.Stop()
	p := NewPayloadReader(NewReader(r), PayloadHeader{Mark: testMark})
	go func() { _, _ = w.Write(make([]byte, 1000)) }()
	n, err := io.ReadFull(p, make([]byte, 1000-(MarkLen-1)))
	if err != nil {
		t.Fatalf("read %d bytes: %v", n, err)
	}
}

func TestPayloadReaderError(t *testing.T) {
	broken := errors.New("broken")
	for _, h := range []PayloadHeader{{Size: 100}, {Mark: testMark}} {
		p := NewPayloadReader(NewReader(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))), h)
		if _, err := io.ReadAll(p); !errors.Is(err, broken) {
			t.Errorf("%v: %v", h, err)
		}
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, broken) {
			t.Errorf("%v: the error did not stay: %v", h, err)
		}
	}
}

// Random payloads that are full of beginnings of the mark, in random pieces.
func TestPayloadPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var payload []byte
		for range rapid.IntRange(0, 20).Draw(t, "parts") {
			if n := rapid.IntRange(0, MarkLen-1).Draw(t, "prefix"); n > 0 {
				payload = append(payload, testMark[:n]...)
			}
			payload = append(payload, rapid.SampledFrom([]string{"", "x", "0", "\n", "some bytes"}).Draw(t, "filler")...)
		}
		rest := rapid.SampledFrom([]string{"", "*1\r\n", testMark}).Draw(t, "rest")
		h := PayloadHeader{Size: int64(len(payload))}
		if rapid.Bool().Draw(t, "marked") {
			h = PayloadHeader{Mark: testMark}
			if i := bytes.Index(append(payload[:len(payload):len(payload)], testMark...), []byte(testMark)); i < len(payload) {
				t.Skip("the mark is in the payload")
			}
		}
		wire := append(append(h.Append(nil), payload...), h.Mark+rest...)
		var src pieces
		for len(wire) > 0 {
			n := rapid.IntRange(1, min(len(wire), 100)).Draw(t, "piece")
			src = append(src, wire[:n])
			wire = wire[n:]
		}
		got, behind, err := readPayload(&src, rapid.SampledFrom([]int{MarkLen, 41, 100, ReaderSize}).Draw(t, "buffer"))
		if err != nil || !bytes.Equal(got, payload) || string(behind) != rest {
			t.Fatalf("got %q, then %q, %v; want %q, then %q", got, behind, err, payload, rest)
		}
	})
}

func BenchmarkPayloadReader(b *testing.B) {
	data := make([]byte, 8<<20)
	rng := rand.NewChaCha8([32]byte{})
	_, _ = rng.Read(data)
	for _, bm := range []struct {
		name string
		h    PayloadHeader
	}{{"size", PayloadHeader{Size: int64(len(data))}}, {"mark", PayloadHeader{Mark: testMark}}} {
		b.Run(bm.name, func(b *testing.B) {
			wire := append(append([]byte{}, data...), bm.h.Mark...)
			buf := make([]byte, 32<<10)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{NewPayloadReader(NewReader(bytes.NewReader(wire)), bm.h)}, buf); n != int64(len(data)) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
