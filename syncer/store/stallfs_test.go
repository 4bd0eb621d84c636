package store

import (
	"os"
	"strings"
	"sync/atomic"
)

// stallFS lets each fsync of a log wait at a gate.
type stallFS struct {
	FS
	stall atomic.Bool
	gate  <-chan struct{}
}

func (s *stallFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".seg") {
		f = &stallFile{f, s}
	}
	return f, err
}

type stallFile struct {
	File
	s *stallFS
}

func (f *stallFile) Sync() error {
	if f.s.stall.Load() {
		<-f.s.gate
	}
	return f.File.Sync()
}
