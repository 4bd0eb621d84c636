package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Listing says what is in a store.
type Listing struct {
	Dir         string              `json:"dir"`
	Generations []GenerationListing `json:"generations"` // newest first
}

// GenerationListing says what is in one generation. Offsets are those of bytes.
type GenerationListing struct {
	ID       uint64           `json:"id"`
	Dir      string           `json:"dir"`     // in the store's
	Current  bool             `json:"current"` // served
	Head     bool             `json:"head"`    // written to
	Created  time.Time        `json:"created"`
	Retired  time.Time        `json:"retired,omitzero"` // when another became current
	History  repl.History     `json:"history"`
	Bases    []Base           `json:"bases"`     // newest first
	LogFirst repl.Offset      `json:"log_first"` // of the first byte stored
	LogLast  repl.Offset      `json:"log_last"`  // of the last byte committed; LogFirst-1 if none is stored
	LogBytes int64            `json:"log_bytes"`
	LogFrom  time.Time        `json:"log_from,omitzero"` // of the first commit in the index
	LogTo    time.Time        `json:"log_to,omitzero"`   // of the last commit
	Fsynced  repl.Offset      `json:"fsynced"`           // durable at least up to it
	Segments []SegmentListing `json:"segments"`          // oldest first
}

// SegmentListing describes one segment.
type SegmentListing struct {
	File  string      `json:"file"`
	First repl.Offset `json:"first"` // of its first byte
	Last  repl.Offset `json:"last"`  // of its last committed byte
	Bytes int64       `json:"bytes"`
	Time  time.Time   `json:"time,omitzero"` // of its last commit
}

// List says what is stored now. The error is one of reading an index.
func (s *Store) List() (Listing, error) {
	l := Listing{Dir: s.dir, Generations: []GenerationListing{}}
	for _, g := range s.Generations() {
		gl, err := g.list()
		if err != nil {
			return Listing{}, fmt.Errorf("list store %s: %w", s.dir, err)
		}
		gl.Current, gl.Head = g == s.Current(), g == s.Head()
		s.mu.RLock()
		if e := s.man.entry(g.id); e != nil {
			gl.Retired = e.Retired
		}
		s.mu.RUnlock()
		l.Generations = append(l.Generations, gl)
	}
	return l, nil
}

func (g *Generation) list() (GenerationListing, error) {
	g.mu.RLock()
	cat, segments := g.cat, g.segments
	g.mu.RUnlock()
	gl := GenerationListing{
		ID: g.id, Dir: generationDir(g.id), Created: cat.Created, History: cat.History, Bases: slices.Clone(cat.Bases),
		LogFirst: cat.LogFirst, LogLast: g.Committed(), Fsynced: g.Fsynced(), Segments: []SegmentListing{},
	}
	slices.Reverse(gl.Bases)
	for i, seg := range segments {
		if i == 0 {
			x, err := seg.readIndex()
			if err != nil {
				return gl, err
			}
			if c := slices.IndexFunc(x.records, func(r record) bool { return r.kind == recordCommit }); c >= 0 {
				gl.LogFrom = x.records[c].mark().Time
			}
		}
		sl := SegmentListing{
			File: segmentFile(seg.first), First: seg.first, Last: seg.last(), Bytes: seg.size(),
			Time: markOf(0, 0, seg.time.Load()).Time,
		}
		gl.LogBytes += sl.Bytes
		gl.LogTo = sl.Time
		gl.Segments = append(gl.Segments, sl)
	}
	return gl, nil
}

// Verification is what Verify found.
type Verification struct {
	Dir         string             `json:"dir"`
	Generations int                `json:"generations"`
	Segments    int                `json:"segments"`
	Bases       int                `json:"bases"`
	Bytes       int64              `json:"bytes"`  // of segments and bases that were read
	Damage      []*CorruptionError `json:"damage"` // empty if all is as it was written
	// Leftovers are what a crash left and Open will put in order, in words. The
	// bytes that a running process has not committed yet show up here, too.
	Leftovers []string `json:"leftovers"`
}

// verifier is one run of Verify.
type verifier struct {
	ctx  context.Context
	fs   FS
	dir  string
	read func(bytes int64)
	v    Verification
}

// Verify reads all of the store in dir, bases and log, and compares it with its
// checksums. It changes nothing, and another process may write meanwhile. read,
// if not nil, is told from time to time how many bytes have been read. Damage is
// in the result; the error is one of reading, or the context's cause.
func Verify(ctx context.Context, dir string, o Options, read func(bytes int64)) (Verification, error) {
	if err := o.complete(); err != nil {
		return Verification{}, err
	}
	if read == nil {
		read = func(int64) {}
	}
	c := &verifier{ctx: ctx, fs: o.FS, dir: dir, read: read}
	c.v = Verification{Dir: dir, Damage: []*CorruptionError{}, Leftovers: []string{}}
	err := c.store()
	if err != nil {
		return c.v, fmt.Errorf("verify store %s: %w", dir, err)
	}
	return c.v, nil
}

func (c *verifier) damage(e *CorruptionError) { c.v.Damage = append(c.v.Damage, e) }

func (c *verifier) leftover(format string, args ...any) {
	c.v.Leftovers = append(c.v.Leftovers, fmt.Sprintf(format, args...))
}

// store verifies the manifest and every generation: those listed, or where the
// manifest is damaged, those that have a directory.
func (c *verifier) store() error {
	m, strays, err := readManifest(c.fs, c.dir)
	var ce *CorruptionError
	if err != nil && !errors.As(err, &ce) {
		return err
	}
	var ids []uint64
	if ce != nil {
		c.damage(ce)
		names, err := c.fs.ReadDir(c.dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if id, ok := parseHexName(name, "gen-", ""); ok {
				ids = append(ids, id)
			}
		}
	} else {
		if len(m.Generations) == 0 {
			return fmt.Errorf("read %s: %w", filepath.Join(c.dir, manifestFile), os.ErrNotExist)
		}
		for _, e := range m.Generations {
			if e.Deleting {
				c.leftover("%s is being removed", generationDir(e.ID))
			} else {
				ids = append(ids, e.ID)
			}
		}
		for _, name := range strays {
			c.leftover("%s is left over", name)
		}
	}
	for _, id := range ids {
		if err := c.settled(id); err != nil {
			return err
		}
	}
	return nil
}

// settled verifies a generation. Another process may remove parts of it
// meanwhile; what seems damaged then is compared with the catalog afterwards.
func (c *verifier) settled(id uint64) error {
	dir := filepath.Join(c.dir, generationDir(id))
	before := c.v
	c.v.Generations++
	err := c.generation(id)
	if err != nil && !isGone(err) || err == nil && len(c.v.Damage) == len(before.Damage) {
		return err
	}
	var m manifest
	if readMeta(c.fs, c.dir, manifestFile, &m) == nil {
		if e := m.entry(id); e == nil || e.Deleting { // all of it was removed
			c.v = before
			return nil
		}
	}
	var now catalog
	if readCatalog(c.fs, dir, id, &now) != nil {
		return err
	}
	c.v.Damage = slices.DeleteFunc(c.v.Damage, func(d *CorruptionError) bool { return d.Dir == dir && outdated(d, &now) })
	return err
}

func (c *verifier) generation(id uint64) error {
	dir := filepath.Join(c.dir, generationDir(id))
	var cat catalog
	var ce *CorruptionError
	if err := readCatalog(c.fs, dir, id, &cat); errors.As(err, &ce) {
		c.damage(ce)
		return nil
	} else if err != nil {
		return err
	}
	names, err := c.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	r := &logRecovery{
		fs: c.fs, dir: dir, cat: &cat, full: true, damage: c.damage,
		segmentDone: func(size int64) error {
			c.v.Segments++
			c.v.Bytes += size
			c.read(c.v.Bytes)
			return context.Cause(c.ctx)
		},
	}
	if err := r.run(names); err != nil {
		return err
	}
	for _, note := range r.notes {
		c.leftover("%s: %s", generationDir(id), note)
	}
	for _, name := range r.remove {
		c.leftover("%s is left over", filepath.Join(generationDir(id), name))
	}
	for _, b := range cat.Bases {
		if err := c.base(dir, b, max(r.mark.Offset, r.known)); err != nil {
			return err
		}
	}
	for _, name := range names {
		n, ok := parseHexName(name, "base-", ".rdb")
		if ok && !cat.lists(repl.Offset(n)) || isTemporary(name) {
			c.leftover("%s is not complete", filepath.Join(generationDir(id), name))
		}
	}
	return nil
}

func (c *verifier) base(dir string, b Base, last repl.Offset) error {
	ce, err := checkBaseSize(c.fs, dir, b, last)
	if err != nil {
		return err
	}
	c.v.Bases++
	if ce != nil {
		c.damage(ce)
		return nil
	}
	f, err := c.fs.OpenFile(filepath.Join(dir, baseFile(b.Offset)), os.O_RDONLY, 0)
	if isGone(err) {
		c.damage(&CorruptionError{Dir: dir, File: baseFile(b.Offset), Reason: "file is missing"})
		return nil
	}
	if err != nil {
		return err
	}
	err = checkBase(c.ctx, dir, f, b, func(n int) {
		c.v.Bytes += int64(n)
		c.read(c.v.Bytes)
	})
	if errors.As(err, &ce) {
		c.damage(ce)
		err = nil
	}
	return errors.Join(err, f.Close())
}
