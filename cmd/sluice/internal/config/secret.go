package config

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
)

// redacted stands where a secret would be printed.
const redacted = "[redacted]"

// Secret is a string that formats and marshals as "[redacted]" (as "" where it
// is empty, so that one can see that none is set). Only a conversion to string
// gives the text; a struct holds it in an exported field, since fmt does not
// ask the methods of unexported ones.
type Secret string

// String returns "[redacted]", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter for every verb: %q, %x and %#v would show the
// text if only String were there.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || (verb == 'v' && f.Flag('#')) {
		_, _ = fmt.Fprintf(f, "%q", s.String())
		return
	}
	_, _ = f.Write([]byte(s.String()))
}

// MarshalText serves encoding/json, go-yaml and flag printers.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalYAML takes the scalar as it is written: the password 007 is not 7.
func (s *Secret) UnmarshalYAML(n ast.Node) error {
	text, err := scalarText(n)
	if err != nil {
		return err
	}
	*s = Secret(text)
	return nil
}
