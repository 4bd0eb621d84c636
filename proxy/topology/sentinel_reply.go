package topology

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// parseSentinel reads the answers to SENTINEL MASTER, GET-MASTER-ADDR-BY-NAME,
// REPLICAS and SENTINELS as go-redis gives them over RESP2.
func parseSentinel(r *sentinelReport, name string, replies []reply) error {
	for _, a := range replies {
		if a.refusal != "" {
			return fmt.Errorf("ask sentinel for %q: %s", name, a.refusal)
		}
	}
	master := fields(replies[0].value)
	epoch, err := strconv.ParseUint(master["config-epoch"], 10, 64)
	if err != nil {
		return fmt.Errorf("parse SENTINEL MASTER: config-epoch %q is no number", master["config-epoch"])
	}
	// Not what MASTER says: once the promoted replica has confirmed, this is its
	// address, some time before +switch-master (sentinelGetCurrentMasterAddress).
	pair, _ := replies[1].value.([]any)
	if len(pair) != 2 {
		return fmt.Errorf("ask sentinel for %q: it knows no address of it", name)
	}
	r.epoch = epoch
	r.master = net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1]))
	for _, f := range fieldList(replies[2].value) {
		if addr := f.addr(); addr != "" {
			r.replicas = append(r.replicas, sentinelReplica{addr, f.down()})
		}
	}
	for _, f := range fieldList(replies[3].value) {
		if addr := f.addr(); addr != "" {
			r.others = append(r.others, otherSentinel{addr, f.down()})
		}
	}
	return nil
}

// instance is the fields of one server as Sentinel lists them
// (addReplySentinelRedisInstance).
type instance map[string]string

func (f instance) addr() string {
	if f["ip"] == "" || f["port"] == "" || f["port"] == "0" {
		return ""
	}
	return net.JoinHostPort(f["ip"], f["port"])
}

// down reports whether the sentinel does not reach the server.
func (f instance) down() bool {
	for flag := range strings.SplitSeq(f["flags"], ",") {
		switch flag {
		case "s_down", "o_down", "disconnected":
			return true
		}
	}
	return false
}

func fields(value any) instance {
	list, _ := value.([]any)
	f := make(instance, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		f[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return f
}

func fieldList(value any) []instance {
	list, _ := value.([]any)
	out := make([]instance, len(list))
	for i, v := range list {
		out[i] = fields(v)
	}
	return out
}
