package store

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

var errCrashed = errors.New("the machine has crashed")

// memFS is a file system in memory that remembers what was fsynced. From the
// operation crashAt on nothing works; afterCrash then gives a file system as
// the next boot may find it. It can also be full, read-only, or fail an fsync.
type memFS struct {
	mu      sync.Mutex
	dirs    map[string]*memDir
	locked  map[string]bool
	ops     int // that change something, so far
	crashAt int // number of the first one that fails; 0: none

	capacity int64 // bytes of all files; 0: no limit
	readOnly bool
	syncErr  error // of the fsyncs to come
	loseSync bool  // a failing fsync drops what was written, as a worse kernel may
	opened   int   // files that are open
}

type memDir struct {
	now, durable map[string]any // *memFile or *memDir
	pending      []dirOp        // since the last SyncDir
}

type dirOp struct {
	remove, add string
	node        any
}

type memFile struct {
	now, durable []byte
	pending      []fileOp // since the last Sync
}

type fileOp struct {
	at   int64 // of a write
	data []byte
	size int64 // of a truncation, where data is nil
}

func newMemFS() *memFS {
	return &memFS{dirs: map[string]*memDir{"/": {now: map[string]any{}, durable: map[string]any{}}}, locked: map[string]bool{}}
}

func (m *memFS) step() error {
	m.ops++
	if m.crashAt > 0 && m.ops >= m.crashAt {
		return errCrashed
	}
	if m.readOnly {
		return syscall.EROFS
	}
	return nil
}

func (m *memFS) dead() error {
	if m.crashAt > 0 && m.ops >= m.crashAt {
		return errCrashed
	}
	return nil
}

func (m *memFS) dir(name string) (*memDir, string, error) {
	d := m.dirs[filepath.Dir(name)]
	if d == nil {
		return nil, "", &os.PathError{Op: "find", Path: name, Err: os.ErrNotExist}
	}
	return d, filepath.Base(name), nil
}

func (d *memDir) change(op dirOp) {
	d.pending = append(d.pending, op)
	apply(d.now, op)
}

func apply(entries map[string]any, op dirOp) {
	if op.remove != "" {
		delete(entries, op.remove)
	}
	if op.add != "" {
		entries[op.add] = op.node
	}
}

func (m *memFS) OpenFile(name string, flag int, _ os.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		return nil, err
	}
	if err := m.dead(); err != nil {
		return nil, err
	}
	f, ok := d.now[base].(*memFile)
	if !ok {
		if flag&os.O_CREATE == 0 {
			return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		if err := m.step(); err != nil {
			return nil, err
		}
		f = &memFile{}
		d.change(dirOp{add: base, node: f})
	} else if flag&os.O_TRUNC != 0 && len(f.now) > 0 {
		if err := m.step(); err != nil {
			return nil, err
		}
		f.change(fileOp{size: 0})
	}
	m.opened++
	return &memHandle{m: m, f: f, name: name}, nil
}

func (m *memFS) Mkdir(name string, _ os.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		return err
	}
	if d.now[base] != nil {
		return os.ErrExist
	}
	if err := m.step(); err != nil {
		return err
	}
	sub := &memDir{now: map[string]any{}, durable: map[string]any{}}
	d.change(dirOp{add: base, node: sub})
	m.dirs[name] = sub
	return nil
}

func (m *memFS) ReadDir(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if d == nil {
		return nil, os.ErrNotExist
	}
	var names []string
	for n := range d.now {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, m.dead()
}

func (m *memFS) Size(name string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		return 0, err
	}
	f, ok := d.now[base].(*memFile)
	if !ok {
		return 0, os.ErrNotExist
	}
	return int64(len(f.now)), m.dead()
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(from)
	if err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return errors.New("rename between directories")
	}
	if d.now[base] == nil {
		return os.ErrNotExist
	}
	if err := m.step(); err != nil {
		return err
	}
	d.change(dirOp{remove: base, add: filepath.Base(to), node: d.now[base]})
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		return err
	}
	if d.now[base] == nil {
		return os.ErrNotExist
	}
	if sub := m.dirs[name]; sub != nil && len(sub.now) > 0 {
		return syscall.ENOTEMPTY
	}
	if err := m.step(); err != nil {
		return err
	}
	delete(m.dirs, name)
	d.change(dirOp{remove: base})
	return nil
}

func (m *memFS) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if d == nil {
		return os.ErrNotExist
	}
	if err := m.step(); err != nil {
		return err
	}
	d.durable, d.pending = cloneMap(d.now), nil
	return nil
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name] {
		return nil, ErrLocked
	}
	m.locked[name] = true
	return closeFunc(func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.locked, name)
		return nil
	}), nil
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func cloneMap(m map[string]any) map[string]any {
	c := make(map[string]any, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (m *memFS) used() (n int64) {
	for _, d := range m.dirs {
		for _, e := range d.now {
			if f, ok := e.(*memFile); ok {
				n += int64(len(f.now))
			}
		}
	}
	return n
}

func (f *memFile) change(op fileOp) {
	f.pending = append(f.pending, op)
	f.now = op.apply(f.now)
}

func (op fileOp) apply(b []byte) []byte {
	if op.data == nil {
		if op.size <= int64(len(b)) {
			return b[:op.size:op.size]
		}
		return append(b, make([]byte, op.size-int64(len(b)))...)
	}
	if gap := op.at + int64(len(op.data)) - int64(len(b)); gap > 0 {
		b = append(b, make([]byte, gap)...)
	}
	copy(b[op.at:], op.data)
	return b
}

type memHandle struct {
	m      *memFS
	f      *memFile
	name   string
	closed bool
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return 0, os.ErrClosed
	}
	if err := h.m.dead(); err != nil {
		return 0, err
	}
	if off >= int64(len(h.f.now)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return 0, os.ErrClosed
	}
	if err := h.m.step(); err != nil {
		return 0, err
	}
	var err error
	if grow := off + int64(len(p)) - int64(len(h.f.now)); h.m.capacity > 0 && grow > 0 {
		if over := h.m.used() + grow - h.m.capacity; over > 0 {
			p, err = p[:max(int64(len(p))-over, 0)], syscall.ENOSPC
		}
	}
	if len(p) > 0 {
		h.f.change(fileOp{at: off, data: slices.Clone(p)})
	}
	return len(p), err
}

func (h *memHandle) Truncate(size int64) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.step(); err != nil {
		return err
	}
	h.f.change(fileOp{size: size})
	return nil
}

func (h *memHandle) Sync() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return os.ErrClosed
	}
	if err := h.m.step(); err != nil {
		return err
	}
	if h.m.syncErr != nil {
		if h.m.loseSync {
			h.f.now = slices.Clone(h.f.durable)
		}
		h.f.pending = nil // the pages are clean now, though not on disk
		return h.m.syncErr
	}
	// Only what is dirty gets to the disk: after a failed fsync that is not all.
	for _, op := range h.f.pending {
		h.f.durable = op.apply(h.f.durable)
	}
	h.f.pending = nil
	return nil
}

func (h *memHandle) Close() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return os.ErrClosed
	}
	h.closed = true
	h.m.opened--
	return nil
}

func (h *memHandle) Stat() (os.FileInfo, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return memInfo{h.name, int64(len(h.f.now))}, h.m.dead()
}

type memInfo struct {
	name string
	size int64
}

func (i memInfo) Name() string     { return filepath.Base(i.name) }
func (i memInfo) Size() int64      { return i.size }
func (memInfo) Mode() os.FileMode  { return fileMode }
func (memInfo) ModTime() time.Time { return time.Time{} }
func (memInfo) IsDir() bool        { return false }
func (memInfo) Sys() any           { return nil }

// survival decides what of the operations that were not fsynced is there after
// a crash.
type survival struct {
	name string
	dirs func(ops []dirOp) []dirOp
	file func(ops []fileOp) []fileOp
}

// survivals are the ways in which a crash may end.
func survivals(rng *rand.Rand) []survival {
	all := func(ops []dirOp) []dirOp { return ops }
	tear := func(op fileOp, n int) fileOp {
		if op.data != nil {
			op.data = op.data[:min(n, len(op.data))]
			if len(op.data) == 0 {
				op.data = []byte{}
			}
		}
		return op
	}
	some := func(ops []fileOp) (kept []fileOp) {
		for _, op := range ops {
			switch rng.IntN(3) {
			case 0:
				kept = append(kept, op)
			case 1:
				if len(op.data) > 0 {
					kept = append(kept, tear(op, rng.IntN(len(op.data))))
				}
			}
		}
		return kept
	}
	return []survival{
		{"everything", all, func(ops []fileOp) []fileOp { return ops }}, // kill -9
		{"nothing", func([]dirOp) []dirOp { return nil }, func([]fileOp) []fileOp { return nil }},
		{"names only", all, func([]fileOp) []fileOp { return nil }},
		{"last write torn", all, func(ops []fileOp) []fileOp {
			if n := len(ops); n > 0 && len(ops[n-1].data) > 0 {
				return append(slices.Clone(ops[:n-1]), tear(ops[n-1], rng.IntN(len(ops[n-1].data))))
			}
			return ops
		}},
		{"some", func(ops []dirOp) []dirOp { return ops[:rng.IntN(len(ops)+1)] }, some},
		{"some, names in any order", func(ops []dirOp) (kept []dirOp) {
			for _, op := range ops {
				if rng.IntN(2) == 0 {
					kept = append(kept, op)
				}
			}
			return kept
		}, some},
	}
}

// afterCrash returns what the next boot finds.
func (m *memFS) afterCrash(s survival) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := &memFS{dirs: map[string]*memDir{}, locked: map[string]bool{}}
	files := map[*memFile]*memFile{}
	var visit func(path string, d *memDir)
	visit = func(path string, d *memDir) {
		entries := cloneMap(d.durable)
		for _, op := range s.dirs(d.pending) {
			apply(entries, op)
		}
		nd := &memDir{now: map[string]any{}}
		next.dirs[path] = nd
		names := make([]string, 0, len(entries))
		for name := range entries {
			names = append(names, name)
		}
		slices.Sort(names) // for the same random choices each time
		for _, name := range names {
			old, isFile := entries[name].(*memFile)
			if !isFile {
				// It may be one that was removed, the removal being lost.
				visit(filepath.Join(path, name), entries[name].(*memDir))
				nd.now[name] = next.dirs[filepath.Join(path, name)]
				continue
			}
			if files[old] == nil {
				data := slices.Clone(old.durable)
				for _, op := range s.file(old.pending) {
					data = op.apply(data)
				}
				files[old] = &memFile{now: data, durable: slices.Clone(data)}
			}
			nd.now[name] = files[old]
		}
		nd.durable = cloneMap(nd.now)
	}
	visit("/", m.dirs["/"])
	return next
}

// afterKill returns the file system as it is once the process is gone: all is
// there, but no more of it is durable than before.
func (m *memFS) afterKill() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := &memFS{dirs: map[string]*memDir{}, locked: map[string]bool{}}
	nodes := map[any]any{}
	var clone func(n any) any
	entries := func(from map[string]any) map[string]any {
		to := map[string]any{}
		for name, n := range from {
			to[name] = clone(n)
		}
		return to
	}
	clone = func(n any) any {
		if nodes[n] != nil {
			return nodes[n]
		}
		switch n := n.(type) {
		case *memFile:
			nodes[n] = &memFile{now: slices.Clone(n.now), durable: slices.Clone(n.durable), pending: slices.Clone(n.pending)}
		case *memDir:
			d := &memDir{now: entries(n.now), durable: entries(n.durable)}
			for _, op := range n.pending {
				d.pending = append(d.pending, dirOp{op.remove, op.add, clone(op.node)})
			}
			nodes[n] = d
		}
		return nodes[n]
	}
	for path, d := range m.dirs {
		next.dirs[path] = clone(d).(*memDir)
	}
	return next
}

// edit changes a file's content in place, as a failing disk does.
func (m *memFS) edit(name string, change func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		panic(err)
	}
	f, ok := d.now[base].(*memFile)
	if !ok {
		panic(fmt.Sprintf("no file %s", name))
	}
	f.now = change(slices.Clone(f.now))
	f.durable, f.pending = slices.Clone(f.now), nil
}

var _ FS = (*memFS)(nil)
