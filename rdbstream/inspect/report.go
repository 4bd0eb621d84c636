package inspect

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-io/sluice/rdbstream"
)

// Report is what Run found. Bytes are those in the file: of keys with their
// names, expiries and values.
type Report struct {
	File       File        `json:"file"`
	Keys       int64       `json:"keys"`
	Bytes      int64       `json:"bytes"`
	Expires    int64       `json:"expires"` // keys that have an expiry
	Expired    int64       `json:"expired"` // of these, those past it at Time
	Time       time.Time   `json:"time"`
	Functions  int64       `json:"functions"`   // function libraries
	OtherBytes int64       `json:"other_bytes"` // of the file that belong to no key
	Types      []TypeStat  `json:"types"`       // largest first
	Databases  []DBStat    `json:"databases"`   // by number
	TTL        []TTLBucket `json:"ttl"`         // shortest first
	Top        []Key       `json:"top"`         // the largest keys, largest first
	Prefixes   []Prefix    `json:"prefixes"`    // the largest prefixes, largest first
}

// File is what a file says about itself.
type File struct {
	Format   string            `json:"format"` // "Redis" or "Valkey"
	Version  int               `json:"rdb_version"`
	Size     int64             `json:"size"`
	Checksum string            `json:"checksum"` // "ok", or "none" if the file has none
	Aux      map[string]string `json:"aux"`
}

// TypeStat sums the keys of one type and form.
type TypeStat struct {
	Type    string `json:"type"`    // as the command TYPE says
	Form    string `json:"form"`    // as stored: "hash-listpack"; of a module, the module's name
	Keys    int64  `json:"keys"`    //
	Bytes   int64  `json:"bytes"`   //
	Largest int64  `json:"largest"` // bytes of the largest key
}

// DBStat sums the keys of a database.
type DBStat struct {
	DB      int   `json:"db"`
	Keys    int64 `json:"keys"`
	Expires int64 `json:"expires"`
	Expired int64 `json:"expired"`
	Bytes   int64 `json:"bytes"`
}

// Key describes one key.
type Key struct {
	DB       int       `json:"db"`
	Name     Text      `json:"name"` // its first 1,024 bytes
	Type     string    `json:"type"`
	Form     string    `json:"form"`
	Bytes    int64     `json:"bytes"`
	Elements int64     `json:"elements"` // -1 where the file does not say
	ExpireAt time.Time `json:"expire_at,omitzero"`
	Idle     int64     `json:"idle_seconds"` // -1 where the file does not say
	Freq     int64     `json:"freq"`         // -1 where the file does not say
}

// maxName is how much of a name a report keeps, in bytes.
const maxName = 1024

// keyOf describes r, whose payload has been read.
func keyOf(r *rdbstream.Record) Key {
	return Key{
		DB: r.DB, Name: Text(r.Name[:min(len(r.Name), maxName)]), Type: r.Type.Command(), Form: formOf(r),
		Bytes: r.Size, Elements: r.Elements, ExpireAt: r.Expiry(), Idle: r.Idle, Freq: r.Freq,
	}
}

// formOf returns how the value is stored: of a module, which one.
func formOf(r *rdbstream.Record) string {
	if r.Module != "" {
		return r.Module
	}
	return r.Type.String()
}

func fileOf(info rdbstream.Info) File {
	f := File{Format: info.Dialect.String(), Version: info.Version, Size: info.Size, Checksum: "none", Aux: map[string]string{}}
	if info.Checked {
		f.Checksum = "ok"
	}
	for _, a := range info.Aux {
		f.Aux[a.Name] = a.Value
	}
	return f
}

// Text is a string of a server, which may be any bytes.
type Text string

// String returns the text as it is if it can be shown, else quoted.
func (t Text) String() string {
	if t.plain() && t != "" {
		return string(t)
	}
	return strconv.Quote(string(t))
}

func (t Text) plain() bool {
	for i, r := range string(t) {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(string(t[i:])); size == 1 {
				return false
			}
		}
		if !unicode.IsPrint(r) || r == '"' && i == 0 {
			return false
		}
	}
	return true
}

// MarshalJSON returns a string, or if the text is not UTF-8 an object
// {"base64": "..."}.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(struct {
		Base64 []byte `json:"base64"`
	}{[]byte(t)})
}
