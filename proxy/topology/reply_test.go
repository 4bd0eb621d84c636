package topology

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestParseRole(t *testing.T) {
	opt := cmp.AllowUnexported(roleReply{})
	for _, test := range []struct {
		name  string
		reply any
		want  roleReply
		fails bool
	}{
		{"master", []any{"master", int64(42), []any{[]any{"10.0.0.1", "6379", "42"}}}, roleReply{role: RoleMaster, offset: 42, replicas: 1}, false},
		{"replica", []any{"slave", "10.0.0.1", int64(6379), "connected", int64(41)},
			roleReply{role: RoleReplica, offset: 41, link: "connected", masterAddr: "10.0.0.1:6379"}, false},
		{"replica by IPv6", []any{"slave", "fd00::1", int64(6379), "connect", int64(-1)},
			roleReply{role: RoleReplica, offset: -1, link: "connect", masterAddr: "[fd00::1]:6379"}, false},
		{"sentinel", []any{"sentinel", []any{"mymaster"}}, roleReply{offset: -1}, false},
		{"nothing", nil, roleReply{}, true},
		{"empty", []any{}, roleReply{}, true},
		{"short", []any{"slave", "10.0.0.1"}, roleReply{}, true},
		{"offset below -1", []any{"slave", "10.0.0.1", int64(6379), "connected", int64(-2)}, roleReply{}, true},
		{"text for a number", []any{"master", "42", []any{}}, roleReply{}, true},
	} {
		got, err := parseRole(test.reply)
		if (err != nil) != test.fails {
			t.Errorf("%s: error %v", test.name, err)
		} else if diff := cmp.Diff(test.want, got, opt); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestParseReplication(t *testing.T) {
	const id, id2 = "8c1f8b0b2d6b2a3c4d5e6f708192a3b4c5d6e7f8", "0123456789abcdef0123456789abcdef01234567"
	text := "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.9\r\nslave_repl_offset:77\r\nslave_priority:100\r\nslave_read_only:1\r\n" +
		"replica_announced:0\r\nconnected_slaves:4\r\n" +
		"slave0:ip=10.0.0.1,port=6379,state=online,offset=77,lag=0\r\n" +
		"slave1:ip=fd00::1,port=6380,state=wait_bgsave,offset=0,lag=0\r\n" +
		"slave2:ip=10.0.0.2,port=0,state=online,offset=77,lag=1\r\n" + // never told its port
		"slave3:ip=replica.example,port=70000,state=online,offset=77,lag=1\r\n" +
		"master_replid:" + id + "\r\nmaster_replid2:" + id2 + "\r\nmaster_repl_offset:77\r\n"
	got, err := parseReplication(text)
	if err != nil {
		t.Fatal(err)
	}
	want := replicationInfo{
		replID: id, replID2: id2, slaveOffset: 77, unannounced: true,
		replicas: []string{"10.0.0.1:6379", "[fd00::1]:6380"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(replicationInfo{})); diff != "" {
		t.Error(diff)
	}
	got, err = parseReplication("master_replid:" + id + "\r\nmaster_replid2:0000000000000000000000000000000000000000\r\n")
	if err != nil || !got.replID2.IsZero() || got.slaveOffset != repl.UnknownOffset || got.unannounced {
		t.Errorf("a master that was never promoted: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "role:master\r\n", "master_replid:xyz\r\n", "master_replid:" + id + "\r\nslave_repl_offset:x\r\n"} {
		if _, err := parseReplication(bad); err == nil {
			t.Errorf("parseReplication(%q) gave no error", bad)
		}
	}
}

func TestAddresses(t *testing.T) {
	for addr, good := range map[string]bool{
		"127.0.0.1:6379": true, "[::1]:6379": true, "redis.example:6379": true,
		"": false, "6379": false, ":6379": false, "::1:6379": false, "host:": false, "host:0": false, "host:99999": false,
	} {
		if err := splitAddr(addr); (err == nil) != good {
			t.Errorf("splitAddr(%q) = %v", addr, err)
		}
	}
}
