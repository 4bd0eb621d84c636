package localredis

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// ServersEnv names further servers for the tests to run against, as PATH does:
// binaries of redis-server or valkey-server (deploy/servers.sh fetches some).
const ServersEnv = "SLUICE_TEST_SERVERS"

// TestServers returns the installed redis-server and those of [ServersEnv].
func TestServers() []string {
	return append([]string{DefaultBinary}, filepath.SplitList(os.Getenv(ServersEnv))...)
}

// Version is a server's kind and version.
type Version struct {
	Valkey       bool // else Redis
	Major, Minor int
}

var versionPattern = regexp.MustCompile(`(Redis|Valkey) server v=(\d+)\.(\d+)`)

// VersionOf asks a binary for its version, by --version.
func VersionOf(binary string) (Version, error) {
	out, err := exec.Command(binary, "--version").CombinedOutput()
	if err != nil {
		return Version{}, fmt.Errorf("run %s --version: %w: %.200q", binary, err, out)
	}
	m := versionPattern.FindStringSubmatch(string(out))
	if m == nil {
		return Version{}, fmt.Errorf("run %s --version: it says %.200q, which names no version", binary, out)
	}
	v := Version{Valkey: m[1] == "Valkey"}
	v.Major, _ = strconv.Atoi(m[2]) // digits
	v.Minor, _ = strconv.Atoi(m[3])
	return v, nil
}

// AtLeast tells whether it is a Redis of that version or a later one. A Valkey
// counts as Redis 7.2, which it was made of.
func (v Version) AtLeast(major, minor int) bool {
	if v.Valkey {
		return major < 7 || major == 7 && minor <= 2
	}
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String returns it as "redis-7.0".
func (v Version) String() string {
	kind := "redis"
	if v.Valkey {
		kind = "valkey"
	}
	return fmt.Sprintf("%s-%d.%d", kind, v.Major, v.Minor)
}
