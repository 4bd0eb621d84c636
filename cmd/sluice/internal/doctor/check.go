package doctor

import "fmt"

// servers returns the nodes whose settings can be looked at: not those that
// could not be asked, which checkNodes tells of, and no relays.
func (f *Facts) servers() []*Node {
	var out []*Node
	for _, n := range f.Nodes() {
		if n.Err == "" && !n.Relay {
			out = append(out, n)
		}
	}
	return out
}

// server returns the master if its settings can be looked at.
func (f *Facts) server() (*Node, bool) {
	return f.Master, f.Master != nil && f.Master.Err == "" && !f.Master.Relay
}

// noInfo says that a check lacks INFO of n.
func (n *Node) noInfo(check string) Finding {
	return Finding{
		Severity: Unknown, Check: check, Node: n.Addr,
		Message: "INFO is not to be had: " + n.InfoErr,
		Action:  "Allow it to the user that doctor logs in as: ACL SETUSER <user> +info",
	}
}

// noSetting says that a check lacks a setting of n.
func (n *Node) noSetting(check, name string) Finding {
	f := Finding{Severity: Unknown, Check: check, Node: n.Addr}
	if n.ConfErr == "" {
		f.Message = fmt.Sprintf("CONFIG GET knows no %s", name)
		return f
	}
	f.Message = "CONFIG GET is not to be had: " + n.ConfErr
	f.Action = "Allow it to the user that doctor logs in as: ACL SETUSER <user> +config|get (before 7.0: +config). A managed service may have no CONFIG: compare with its own pages"
	return f
}

// noRate says that a check lacks the write rate.
func (f *Facts) noRate(check string) Finding {
	x := Finding{Severity: Unknown, Check: check, Node: f.Master.Addr,
		Action: "Run doctor while the usual writes go on, or give the rate of the peak: --write-rate 20mb"}
	if f.Master.WriteRate < 0 {
		x.Message = "the write rate could not be measured: master_repl_offset could not be read twice"
		return x
	}
	if f.Master.Info.Is("repl_backlog_active", "0") {
		x.Message = "the write rate cannot be measured: the master counts it only from its first replica on"
		x.Action = "Give the rate of the peak: --write-rate 20mb"
		return x
	}
	x.Message = fmt.Sprintf("no writes were seen within %s", seconds(f.Sample.Seconds()))
	return x
}

// idle is the write rate in bytes/s below which nothing is written: the master's
// own PINGs are a few bytes per second.
const idle = 64

// writes returns the rate to check against; ok is false where nothing is known
// to be written.
func (f *Facts) writes() (bytesPerSecond float64, ok bool) {
	rate, ok := f.rate()
	return rate, ok && rate >= idle
}
