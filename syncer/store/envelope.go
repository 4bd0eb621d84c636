package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-io/sluice/syncer/repl"
)

// castagnoli is the table of CRC32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// maxMetaSize bounds the metadata files in bytes; a thousand bases and
// ancestors take less than one megabyte.
const maxMetaSize = 16 << 20

const metaVersion = 1

// Names of files in the store's directory and in a generation's.
const (
	manifestFile = "manifest"
	lockFile     = "lock"
	catalogFile  = "catalog"
	probeFile    = "probe.tmp"
	tmpSuffix    = ".tmp"
)

// encodeMeta writes v in the form of the metadata files: a line with kind,
// version and CRC32C of what follows, then JSON.
func encodeMeta(kind string, v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	body = append(body, '\n')
	return append([]byte(metaHead(kind, body)), body...), nil
}

// metaHead returns the first line.
func metaHead(kind string, body []byte) string {
	return fmt.Sprintf("sluice-%s %d %08x\n", kind, metaVersion, checksum(body))
}

// decodeMeta reads what encodeMeta wrote. The offset tells where it went wrong.
func decodeMeta(kind string, data []byte, v any) (offset int64, err error) {
	head, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return 0, fmt.Errorf("no %s: its first line is missing", kind)
	}
	var version int
	var sum uint32
	if n, err := fmt.Sscanf(string(head), "sluice-"+kind+" %d %08x", &version, &sum); n != 2 || err != nil {
		return 0, fmt.Errorf("first line %.80q is not that of a %s", head, kind)
	}
	if version != metaVersion {
		return 0, fmt.Errorf("%s has format %d, this program knows %d", kind, version, metaVersion)
	}
	at := int64(len(head) + 1)
	if got := checksum(body); got != sum {
		return at, fmt.Errorf("%s has CRC32C %08x, its first line says %08x", kind, got, sum)
	}
	if string(head)+"\n" != metaHead(kind, body) { // Sscanf is generous
		return 0, fmt.Errorf("first line %.80q is not that of a %s", head, kind)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return at + dec.InputOffset(), fmt.Errorf("decode %s: %w", kind, err)
	}
	return 0, nil
}

// readMeta reads and checks a metadata file. An error of the file system is
// returned as it is, damage as a [CorruptionError].
func readMeta(fs FS, dir, kind string, v interface{ validate() error }) error {
	data, err := readFile(fs, filepath.Join(dir, kind), maxMetaSize)
	if err != nil {
		return err
	}
	at, err := decodeMeta(kind, data, v)
	if err == nil {
		err = v.validate()
	}
	if err != nil {
		return &CorruptionError{Dir: dir, File: kind, Offset: at, Reason: err.Error()}
	}
	return nil
}

// writeMeta replaces a metadata file durably and atomically: temporary file,
// fsync, rename, fsync of the directory.
func writeMeta(fs FS, dir, kind string, v any) (err error) {
	data, err := encodeMeta(kind, v)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, kind)
	if err := writeFileSync(fs, name+tmpSuffix, data); err != nil {
		return err
	}
	if err := fs.Rename(name+tmpSuffix, name); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// writeFileSync writes a file and fsyncs it.
func writeFileSync(fs FS, name string, data []byte) error {
	f, err := fs.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// hexName returns prefix, n in 16 hexadecimal digits, and suffix.
func hexName(prefix string, n uint64, suffix string) string {
	return fmt.Sprintf("%s%016x%s", prefix, n, suffix)
}

// parseHexName is the reverse of hexName.
func parseHexName(name, prefix, suffix string) (uint64, bool) {
	if len(name) != len(prefix)+16+len(suffix) {
		return 0, false
	}
	var n uint64
	if _, err := fmt.Sscanf(name[len(prefix):len(prefix)+16], "%016x", &n); err != nil {
		return 0, false
	}
	return n, hexName(prefix, n, suffix) == name && n <= 1<<63-1
}

func generationDir(id uint64) string { return hexName("gen-", id, "") }

func segmentFile(first repl.Offset) string { return hexName("log-", uint64(first), ".seg") }
func indexFile(first repl.Offset) string   { return hexName("log-", uint64(first), ".idx") }
func baseFile(off repl.Offset) string      { return hexName("base-", uint64(off), ".rdb") }

// isTemporary reports whether a name is that of a file that a crash may leave
// half written.
func isTemporary(name string) bool {
	return slices.Contains([]string{manifestFile + tmpSuffix, catalogFile + tmpSuffix, probeFile}, name) ||
		func() bool { _, ok := parseHexName(name, "base-", ".rdb"+tmpSuffix); return ok }()
}
