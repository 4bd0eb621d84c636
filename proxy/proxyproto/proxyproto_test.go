package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func header(command, family byte, body string) string {
	return string(binary.BigEndian.AppendUint16(append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family), uint16(len(body)))) + body
}

const (
	v4 = "\x0a\x01\x02\x03\x7f\x00\x00\x01\x1f\x90\x00\x50" // 10.1.2.3:8080 to 127.0.0.1:80
	v6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x07\x00\x50"
	tlv = "\x04\x00\x02ab" + "\x02\x00\x00"
)

var mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01\x02\x03" + v6[16:]

func TestRead(t *testing.T) {
	path := "/run/x.sock"
	sock := path + strings.Repeat("\x00", 2*unixPath-len(path))
	for _, tc := range []struct {
		name, in, from string
		err            error
	}{
		{"TCP4", header(0x21, 0x11, v4), "10.1.2.3:8080", nil},
		{"TCP4 with TLVs", header(0x21, 0x11, v4+tlv), "10.1.2.3:8080", nil},
		{"TCP6", header(0x21, 0x21, v6), "[2001:db8::1]:7", nil},
		{"TCP6 that is TCP4", header(0x21, 0x21, mapped), "10.1.2.3:7", nil},
		{"UNIX", header(0x21, 0x31, sock), path, nil},
		{"UNIX without a path", header(0x21, 0x31, strings.Repeat("\x00", 2*unixPath)), "unix", nil},
		{"UNIX, as long as can be", header(0x21, 0x31, strings.Repeat("a", 2*unixPath)), strings.Repeat("a", unixPath), nil},
		{"UNSPEC", header(0x21, 0x00, "whatever"), "", nil},
		{"UNSPEC family", header(0x21, 0x01, ""), "", nil},
		{"datagrams", header(0x21, 0x12, v4), "", nil},
		{"LOCAL", header(0x20, 0x00, ""), "", nil},
		{"LOCAL with an address", header(0x20, 0x11, v4), "", nil},
		{"LOCAL of an unknown family", header(0x20, 0xff, "xy"), "", nil},
		{"the longest", header(0x21, 0x11, v4+"\x04\x0f\xf1"+strings.Repeat("x", 4081)), "10.1.2.3:8080", nil},
		{"too long", header(0x21, 0x11, v4+"\x04\x0f\xf2"+strings.Repeat("x", 4082)), "", ErrTooLarge},
		{"unknown command", header(0x22, 0x11, v4), "", ErrMalformed},
		{"version 3", header(0x31, 0x11, v4), "", ErrMalformed},
		{"unknown family", header(0x21, 0x41, v4), "", ErrMalformed},
		{"unknown protocol", header(0x21, 0x13, v4), "", ErrMalformed},
		{"short TCP4", header(0x21, 0x11, v4[:11]), "", ErrMalformed},
		{"short TCP6", header(0x21, 0x21, v6[:35]), "", ErrMalformed},
		{"short UNIX", header(0x21, 0x31, sock[:215]), "", ErrMalformed},
		{"TLV cut off", header(0x21, 0x11, v4+"\x04\x00\x03ab"), "", ErrMalformed},
		{"TLV without length", header(0x21, 0x11, v4+"\x04\x00"), "", ErrMalformed},
		{"version 1", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "", ErrVersion1},
		{"a request", "*1\r\n$4\r\nPING\r\n", "", ErrMissing},
		{"a short request", "PING\r\n", "", ErrMissing},
		{"almost", header(0x21, 0x11, v4)[:11] + "x", "", ErrMissing},
		{"nothing", "", "", io.EOF},
		{"cut off in the signature", header(0x21, 0x11, v4)[:5], "", io.ErrUnexpectedEOF},
		{"cut off before the address", header(0x21, 0x11, v4)[:16], "", io.ErrUnexpectedEOF},
		{"cut off in the address", header(0x21, 0x11, v4)[:20], "", io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, chunks := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader,
			} {
				in := tc.in
				if tc.err == nil {
					in += "*1\r\n"
				}
				src := strings.NewReader(in)
				from, err := Read(chunks(src))
				if from != tc.from || !errors.Is(err, tc.err) {
					t.Fatalf("%q, %v; want %q, %v", from, err, tc.from, tc.err)
				}
				if tc.err == nil && src.Len() != 4 {
					t.Fatalf("%d bytes are left, want the 4 that follow", src.Len())
				}
			}
		})
	}
}

// TestReadFailsAtOnce: who sends something else, and then waits, does not make
// Read wait.
func TestReadFailsAtOnce(t *testing.T) {
	waits := iotest.ErrReader(errors.New("read on"))
	for in, want := range map[string]error{"GET k\r\n": ErrMissing, "\r\nx": ErrMissing, "PROXY ": ErrVersion1, "PRO ": ErrMissing} {
		if _, err := Read(io.MultiReader(strings.NewReader(in), waits)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
}

// FuzzRead: whatever comes, Read takes the header alone, which is never longer
// than allowed, and the result does not depend on how the bytes arrive.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "PROXY ", "PING\r\n", header(0x20, 0, ""), header(0x21, 0x11, v4+tlv), header(0x21, 0x21, v6), header(0x21, 0x31, strings.Repeat("p", 216)),
	} {
		f.Add([]byte(s + "*1\r\n"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		src := bytes.NewReader(in)
		from, err := Read(src)
		used := len(in) - src.Len()
		if used > fixedSize+MaxSize {
			t.Fatalf("%d bytes were read", used)
		}
		slow := bytes.NewReader(in)
		from2, err2 := Read(iotest.OneByteReader(slow))
		if from != from2 || (err == nil) != (err2 == nil) || err == nil && slow.Len() != src.Len() {
			t.Fatalf("%q, %v; byte by byte %q, %v", from, err, from2, err2)
		}
		if err != nil {
			if from != "" {
				t.Fatalf("%q with %v", from, err)
			}
			return
		}
		if want := fixedSize + int(binary.BigEndian.Uint16(in[14:])); used != want || !bytes.HasPrefix(in, signature) {
			t.Fatalf("%d bytes were taken, want %d", used, want)
		}
	})
}
