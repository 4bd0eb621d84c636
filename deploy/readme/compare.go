package main

import (
	"regexp"
	"strings"
)

var (
	note    = regexp.MustCompile(`\s+<- .*$`)
	varying = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+(?::\d+)?|\b[0-9a-f]{40}\b|-?\d+(?:\.\d+)?(?: ?(?:[KMG]i?B|bytes|µs|us|ms|s)\b)?`)
	tempDir = regexp.MustCompile(`(?:/tmp|/var/folders)/[^\s,]+`)
	address = regexp.MustCompile(`^\d+\.\d+\.\d+\.\d+`)
)

// shape returns a line without what differs from run to run: numbers with their
// units, replication ids, temporary files, the width of columns. Addresses stay. The page's own
// notes (<- ...) go.
func shape(line string) string {
	line = note.ReplaceAllString(line, "")
	line = tempDir.ReplaceAllString(line, "TEMP")
	line = strings.ReplaceAll(line, "[::]:", "0.0.0.0:") // all of this machine, with IPv6 or without
	line = varying.ReplaceAllStringFunc(line, func(s string) string {
		if address.MatchString(s) {
			return s
		}
		return "N"
	})
	return strings.Join(strings.Fields(line), " ")
}

// missing returns the printed lines that the output does not have. Each line of
// the output counts once, may go on beyond what is printed, and may stand
// anywhere; a line that begins with "..." stands for lines that are left out.
func missing(printed []string, output string) (lost []string) {
	var have []string
	for line := range strings.Lines(output) {
		have = append(have, shape(line))
	}
	for _, line := range printed {
		want := shape(line)
		if want == "" || strings.HasPrefix(want, "...") {
			continue
		}
		found := false
		for i, h := range have {
			if strings.HasPrefix(h, want) {
				have[i], found = "", true
				break
			}
		}
		if !found {
			lost = append(lost, line)
		}
	}
	return lost
}
