package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestErrorsAreExplained: README.md's table of errors has a row for each code
// that the sources know, and no other.
func TestErrorsAreExplained(t *testing.T) {
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:SLUICE_|EXEC)[A-Z]+)` \\|([^|]+)\\|([^|]+)\\|$").FindAllStringSubmatch(string(page), -1) {
		explained = append(explained, row[1])
		if strings.TrimSpace(row[2]) == "" || strings.TrimSpace(row[3]) == "" {
			t.Errorf("README.md does not say what %s means, and what to do", row[1])
		}
	}
	known := slices.Sorted(slices.Values(errorCodes[:]))
	slices.Sort(explained)
	if !slices.Equal(explained, known) {
		t.Errorf("README.md explains %q, the code has %q", explained, known)
	}
	// A text whose code errorCodes lacks would be counted nowhere.
	code := regexp.MustCompile(`"(SLUICE_[A-Z]+) `)
	found := 0
	for _, pattern := range []string{"*.go", "*/*.go", "../syncer/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range code.FindAllSubmatch(src, -1) {
				found++
				if !slices.Contains(errorCodes[:], string(m[1])) {
					t.Errorf("%s answers %s, which errorCodes lacks", file, m[1])
				}
			}
		}
	}
	if found < len(errorCodes) {
		t.Errorf("only %d texts of errors were found", found)
	}
}
