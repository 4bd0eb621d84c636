package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

// The severities, worst first.
const (
	Problem Severity = "problem" // it hurts now, or will under the measured load
	Warning Severity = "warning" // it hurts when something else happens too
	Unknown Severity = "unknown" // what a check needs could not be read
)

// Finding is one thing that a check has to say.
type Finding struct {
	Severity Severity           `json:"severity"`
	Check    string             `json:"check"`             // the setting or the subject: "repl-backlog-size", "clock"
	Node     string             `json:"node,omitempty"`    // HOST:PORT; "" for the deployment as a whole
	Message  string             `json:"message"`           // what will hurt, and why, with the numbers
	Action   string             `json:"action,omitempty"`  // what to change
	Numbers  map[string]float64 `json:"numbers,omitempty"` // those of Message; the names end in their unit
}

// Report is the result of [Examine].
type Report struct {
	Master   string    `json:"master"`   // HOST:PORT, "" if none was found
	Replicas []string  `json:"replicas"` // HOST:PORT
	Rate     float64   `json:"write_bytes_per_second"`
	Problems int       `json:"problems"`
	Warnings int       `json:"warnings"`
	Unknowns int       `json:"unknowns"`
	Findings []Finding `json:"findings"` // worst first
}

// check looks at the facts for one thing.
type check func(*Facts) []Finding

// checks are all there are, in the order of what they say within a severity.
var checks = []check{
	checkNodes, checkLinks, checkDeadLoop, checkFullSyncs, checkBacklog, checkReplTimeout,
	checkDiskless, checkMinReplicas, checkStaleData, checkReadOnly, checkEviction,
	checkPersistence, checkUsers, checkClock, checkVersions, checkSentinel,
}

// Examine runs all checks.
func Examine(f *Facts) *Report {
	r := &Report{Replicas: []string{}, Rate: -1, Findings: []Finding{}}
	if f.Master != nil {
		r.Master = f.Master.Addr
	}
	for _, n := range f.Replicas {
		r.Replicas = append(r.Replicas, n.Addr)
	}
	if rate, ok := f.rate(); ok {
		r.Rate = rate
	}
	for _, c := range checks {
		r.Findings = append(r.Findings, c(f)...)
	}
	r.Findings = mergeUnknown(r.Findings)
	worst := []Severity{Problem, Warning, Unknown}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(worst, a.Severity), slices.Index(worst, b.Severity))
	})
	for _, x := range r.Findings {
		switch x.Severity {
		case Problem:
			r.Problems++
		case Warning:
			r.Warnings++
		case Unknown:
			r.Unknowns++
		}
	}
	return r
}

// mergeUnknown makes one finding of all those of a node that lack the same
// thing: CONFIG that is denied is one fact, not ten.
func mergeUnknown(in []Finding) []Finding {
	type key struct{ node, message string }
	first := map[key]int{}
	out := in[:0:0]
	for _, f := range in {
		k := key{f.Node, f.Message}
		i, seen := first[k]
		switch {
		case f.Severity != Unknown:
		case !seen:
			first[k] = len(out)
		default:
			if !slices.Contains(strings.Split(out[i].Check, ", "), f.Check) {
				out[i].Check += ", " + f.Check
			}
			continue
		}
		out = append(out, f)
	}
	return out
}

// Text renders the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	master := r.Master
	if master == "" {
		master = "none"
	}
	fmt.Fprintf(&b, "master %s   replicas %d", master, len(r.Replicas))
	if r.Rate >= 0 {
		fmt.Fprintf(&b, "   writes %s/s", size(r.Rate))
	}
	b.WriteString("\n")
	for _, f := range r.Findings {
		word := map[Severity]string{Problem: "PROBLEM", Warning: "WARNING", Unknown: "NOT CHECKED"}[f.Severity]
		fmt.Fprintf(&b, "\n%s  %s", word, f.Check)
		if f.Node != "" {
			fmt.Fprintf(&b, "  at %s", f.Node)
		}
		fmt.Fprintf(&b, "\n  %s\n", f.Message)
		if f.Action != "" {
			fmt.Fprintf(&b, "  -> %s\n", f.Action)
		}
	}
	if len(r.Findings) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s, %s, %d not checked\n", count(r.Problems, "problem"), count(r.Warnings, "warning"), r.Unknowns)
	return b.String()
}

// count words a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
