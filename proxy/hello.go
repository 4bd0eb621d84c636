package proxy

import (
	"fmt"

	"github.com/sluice-io/sluice/resp"
)

// defaultHello is what HELLO tells, in the order of Redis, until a master has
// told what it says itself: another server, as Valkey, has other words, and
// clients go by them.
func defaultHello(version string) []any {
	return []any{
		"server", "redis", "version", version, "proto", nil, "id", nil,
		"mode", "standalone", "role", "master", "modules", []any{},
	}
}

// noteHello takes a master's answer to HELLO, as RESP2 has it; anything else is
// not taken.
func (s *Server) noteHello(answer any, version string) {
	hello, ok := answer.([]any)
	if !ok || len(hello) == 0 || len(hello)%2 != 0 {
		hello = defaultHello(version)
	}
	s.hello.Store(&hello)
}

// isValkey reports whether the master is a Valkey of at least that version.
func (s *Server) isValkey(major, minor int) bool {
	server, version := "", ""
	hello := *s.hello.Load()
	for i := 0; i+1 < len(hello); i += 2 {
		switch hello[i] {
		case "server":
			server, _ = hello[i+1].(string)
		case "version":
			version, _ = hello[i+1].(string)
		}
	}
	return server == "valkey" && versionAtLeast(version, major, minor)
}

// helloReply is the master's answer to HELLO with the protocol and the number
// of this session.
func (s *session) helloReply() []byte {
	hello := *s.w.srv.hello.Load()
	b := resp.AppendMapHeader(nil, len(hello)/2, s.id.Proto)
	for i := 0; i+1 < len(hello); i += 2 {
		name, value := fmt.Sprint(hello[i]), hello[i+1]
		b = resp.AppendBulkString(b, name)
		switch name {
		case "proto":
			value = int64(s.id.Proto)
		case "id":
			value = int64(s.num)
		}
		b = appendHello(b, value, s.id.Proto, name == "modules")
	}
	return b
}

// appendHello appends a value. The elements of a list of maps are flat in RESP2.
func appendHello(b []byte, value any, proto int, maps bool) []byte {
	switch v := value.(type) {
	case int64:
		return resp.AppendInt(b, v)
	case []any:
		b = resp.AppendArrayHeader(b, len(v))
		for _, e := range v {
			m, ok := e.([]any)
			if !maps || !ok {
				b = appendHello(b, e, proto, false)
				continue
			}
			b = resp.AppendMapHeader(b, len(m)/2, proto)
			for _, e := range m[:len(m)/2*2] {
				b = appendHello(b, e, proto, false)
			}
		}
		return b
	case nil:
		return resp.AppendNull(b, proto)
	default:
		return resp.AppendBulkString(b, fmt.Sprint(v))
	}
}
