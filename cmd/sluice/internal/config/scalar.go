package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Size is a number of bytes, written as in redis.conf: 1k is 1000, 1kb is 1024,
// likewise m, mb, g and gb in either case (memtoull in Redis's util.c).
type Size int64

// sizeUnits are redis.conf's, with the longer suffixes first.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"gb", 1 << 30}, {"mb", 1 << 20}, {"kb", 1 << 10},
	{"g", 1e9}, {"m", 1e6}, {"k", 1e3}, {"b", 1},
}

// ParseSize parses a size such as 64mb. A bare number is bytes.
func ParseSize(text string) (Size, error) {
	digits, unit := strings.ToLower(text), int64(1)
	for _, u := range sizeUnits {
		if head, ok := strings.CutSuffix(digits, u.suffix); ok {
			digits, unit = head, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/unit {
		return 0, fmt.Errorf("size %q: want a number of bytes as in redis.conf: 1048576, 64mb, 1gb", text)
	}
	return Size(int64(n) * unit), nil
}

// String returns the shortest exact form with a binary unit: 64mb, 1500000.
func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText returns String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses as [ParseSize].
func (s *Size) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSize(string(b))
	return err
}

// UnmarshalYAML parses as [ParseSize]; its errors carry line and column.
func (s *Size) UnmarshalYAML(n ast.Node) error { return unmarshalScalar(n, s.UnmarshalText) }

// Duration is a time.Duration written as Go writes it: 10s, 1m30s, 250ms.
type Duration time.Duration

// String returns Go's form.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses as time.ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit: 250ms, 10s, 1m30s", b)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalYAML parses as UnmarshalText; its errors carry line and column.
func (d *Duration) UnmarshalYAML(n ast.Node) error { return unmarshalScalar(n, d.UnmarshalText) }

// unmarshalScalar gives the text of n to set and puts n's position on an error.
func unmarshalScalar(n ast.Node, set func([]byte) error) error {
	text, err := scalarText(n)
	if err != nil {
		return err
	}
	if err := set([]byte(text)); err != nil {
		return &yaml.SyntaxError{Message: err.Error(), Token: n.GetToken()}
	}
	return nil
}

// scalarText returns a scalar as written, without quotes and without the number
// formats of YAML.
func scalarText(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode: // "|" and ">" blocks
		return n.Value.Value, nil
	case *ast.NullNode:
		return "", nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, nil
	}
	return "", &yaml.SyntaxError{Message: "a single value is expected here", Token: n.GetToken()}
}
