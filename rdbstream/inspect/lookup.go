package inspect

import (
	"bytes"
	"errors"
	"io"

	"github.com/sluice-io/sluice/rdbstream"
)

// Limits of [Lookup].
const (
	// MaxValueBytes is the largest value that is decoded, as stored. The decoder
	// needs about four times as much memory.
	MaxValueBytes = 64 << 20
	// MaxItems is how many items of a value are shown.
	MaxItems = 100
)

// Found is a key that Lookup found, with its value or why it is not shown.
type Found struct {
	Key
	Value *Value `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// Result is what Lookup found.
type Result struct {
	Keys   []Found `json:"keys"`           // one for each database that has the key
	Panics int     `json:"decoder_panics"` // how often the decoder panicked, which was contained
}

// Lookup returns the keys of that name. It reads to the end of the file and
// returns an error of package rdbstream if the file is damaged. That a value
// cannot be decoded is no error: Found says so.
func Lookup(r io.Reader, name string) (*Result, error) {
	found := &Result{Keys: []Found{}}
	d := &decoder{limit: MaxItems}
	s := rdbstream.NewScanner(r)
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			found.Panics = d.panics
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if rec.Kind != rdbstream.KindKey || string(rec.Name) != name {
			continue
		}
		f, err := read(s, d)
		if err != nil {
			return nil, err
		}
		found.Keys = append(found.Keys, f)
	}
}

// read reads and decodes the current key.
func read(s *rdbstream.Scanner, d *decoder) (Found, error) {
	var payload bytes.Buffer
	if _, err := io.CopyN(&payload, s, MaxValueBytes+1); err != nil && !errors.Is(err, io.EOF) {
		return Found{}, err
	}
	if err := s.Skip(); err != nil {
		return Found{}, err
	}
	rec := s.Record()
	f := Found{Key: keyOf(rec)}
	if payload.Len() > MaxValueBytes {
		f.Error = "too large to be shown: more than 64 MB"
		return f, nil
	}
	v, err := d.decode(s.Info(), rec, payload.Bytes())
	if err != nil {
		f.Error = err.Error()
		return f, nil
	}
	f.Value = v
	return f, nil
}
