package main

import (
	"github.com/sluice-io/sluice/proxy"
)

// branch is a node and the lines that lead to it in a drawing of the tree.
type branch struct {
	lines string
	node  *proxy.NodeStatus
}

// treeOf orders the nodes so that each comes below the one it follows, and draws
// the branches. What follows nobody here stands at the left; so does a ring.
func treeOf(nodes []proxy.NodeStatus) []branch {
	byAddr := make(map[string]*proxy.NodeStatus, len(nodes))
	for i := range nodes {
		byAddr[nodes[i].Address] = &nodes[i]
	}
	children := make(map[*proxy.NodeStatus][]*proxy.NodeStatus)
	var roots []*proxy.NodeStatus
	for i := range nodes {
		n := &nodes[i]
		if up := byAddr[n.Follows]; up != nil && up != n {
			children[up] = append(children[up], n)
		} else {
			roots = append(roots, n)
		}
	}
	var out []branch
	seen := make(map[*proxy.NodeStatus]bool)
	var grow func(n *proxy.NodeStatus, lines, below string)
	grow = func(n *proxy.NodeStatus, lines, below string) {
		seen[n] = true
		out = append(out, branch{lines, n})
		kids := children[n]
		for i, c := range kids {
			if seen[c] {
				continue
			}
			if i == len(kids)-1 {
				grow(c, below+"└ ", below+"  ")
			} else {
				grow(c, below+"├ ", below+"│ ")
			}
		}
	}
	for _, n := range roots {
		grow(n, "", "")
	}
	for i := range nodes {
		if n := &nodes[i]; !seen[n] {
			grow(n, "", "")
		}
	}
	return out
}
