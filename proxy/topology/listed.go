package topology

import "strings"

// ListedReplicas returns the replicas, as HOST:PORT, that a node's INFO
// replication lists and that can be connected to.
func ListedReplicas(info string) (addrs []string) {
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			if addr, ok := slaveLine(key, value); ok {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}
