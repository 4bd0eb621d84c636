package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load returns the defaults with file (none if empty), the password of the
// environment and the flags over them, in that order, and validates the result.
// An error of the file names file, line and column; it never quotes the line,
// which may hold a password.
func Load(file string, f Flags) (*Config, error) {
	c := Default()
	if file != "" {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := decode(src, c); err != nil {
			return nil, fmt.Errorf("read configuration %s%w", file, err)
		}
	}
	if err := f.apply(c); err != nil {
		return nil, err
	}
	if err := c.resolvePasswords(f.PasswordFile); err != nil {
		return nil, err
	}
	if err := c.Relay.resolvePassword(); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// resolvePasswords sets the passwords in force: of the flag's file, else of the
// environment, else of the configuration file.
func (c *Config) resolvePasswords(flagFile string) error {
	if flagFile != "" {
		c.Upstream.Password, c.Upstream.PasswordFile = "", flagFile
	}
	env := os.Getenv(PasswordEnv)
	if flagFile != "" {
		env = ""
	}
	if err := resolvePassword("upstream", &c.Upstream.Password, &c.Upstream.PasswordFile, env); err != nil {
		return err
	}
	return resolvePassword("sentinel", &c.Sentinel.Password, &c.Sentinel.PasswordFile, os.Getenv(SentinelPasswordEnv))
}

func resolvePassword(section string, password *Secret, file *string, env string) error {
	if *password != "" && *file != "" {
		return &FieldError{section + ".password_file", *file, section + ".password is set too; give one of the two"}
	}
	if env != "" {
		*password, *file = Secret(env), ""
	}
	if *file == "" {
		return nil
	}
	var err error
	*password, err = readPassword(section+".password_file", *file)
	return err
}

// PasswordOf returns the first line of a file, or without one what [PasswordEnv]
// holds.
func PasswordOf(file string) (string, error) {
	if file == "" {
		return os.Getenv(PasswordEnv), nil
	}
	p, err := readPassword("--password-file", file)
	return string(p), err
}

// readPassword returns the first line of the file that the key field names.
func readPassword(field, file string) (Secret, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return "", &FieldError{field, file, "its first line is empty; it must be the password"}
	}
	return Secret(line), nil
}

// decode reads one YAML document over c. Its errors begin with ":LINE:COLUMN: "
// or ": ".
func decode(src []byte, c *Config) error {
	empty, err := checkDocuments(src)
	if err == nil && !empty { // the decoder would zero c for an empty document
		err = yaml.NewDecoder(bytes.NewReader(src), yaml.Strict()).Decode(c)
	}
	if err != nil {
		return positioned(src, err)
	}
	return nil
}

// checkDocuments reports whether src holds nothing but comments, and refuses a
// second document, which the decoder would ignore.
func checkDocuments(src []byte) (empty bool, err error) {
	file, err := parser.ParseBytes(src, 0)
	if err != nil {
		return false, err
	}
	empty = true
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		if !empty {
			return false, &yaml.SyntaxError{Message: "a second document; put all keys into one", Token: doc.Body.GetToken()}
		}
		empty = false
	}
	return empty, nil
}

// positioned rewrites an error of go-yaml for an operator. Its own text quotes
// the lines around the fault, and passwords with them.
func positioned(src []byte, err error) error {
	var ye yaml.Error
	if !errors.As(err, &ye) || ye.GetToken() == nil || ye.GetToken().Position == nil {
		return fmt.Errorf(": %w", err)
	}
	msg, at := ye.GetMessage(), ye.GetToken().Position
	var te *yaml.TypeError
	var unknown *yaml.UnknownFieldError
	var twice *yaml.DuplicateKeyError
	switch {
	case errors.As(err, &te):
		msg = fmt.Sprintf("%s is expected here", kindName(te.DstType))
	case errors.As(err, &unknown):
		msg = strings.Replace(msg, "unknown field", "unknown key", 1)
	case errors.As(err, &twice): // names the key only
	case passwordLine(src, at.Line):
		msg = "not a valid value; put a password into double quotes"
	}
	return fmt.Errorf(":%d:%d: %s", at.Line, at.Column, msg)
}

// passwordLine reports whether the line, counted from 1, sets a password.
func passwordLine(src []byte, line int) bool {
	lines := bytes.Split(src, []byte("\n"))
	return line >= 1 && line <= len(lines) && bytes.Contains(lines[line-1], []byte("password"))
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "a group of keys"
	default:
		return "a single value"
	}
}

// Changed returns the keys, as "limits.max_clients", whose values differ
// between a and b. A list is one key, but for listeners of the same number:
// "listeners[0].read_from".
func Changed(a, b *Config) []string {
	return changed(nil, "", reflect.ValueOf(*a), reflect.ValueOf(*b))
}

func changed(keys []string, prefix string, a, b reflect.Value) []string {
	for i := range a.NumField() {
		key := prefix + a.Type().Field(i).Tag.Get("yaml")
		switch x, y := a.Field(i), b.Field(i); {
		case x.Kind() == reflect.Struct:
			keys = changed(keys, key+".", x, y)
		case x.Type() == reflect.TypeFor[[]Listener]() && x.Len() == y.Len():
			for i := range x.Len() {
				keys = changed(keys, fmt.Sprintf("%s[%d].", key, i), x.Index(i), y.Index(i))
			}
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			keys = append(keys, key)
		}
	}
	return keys
}
