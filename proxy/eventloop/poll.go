package eventloop

// event is one report of the kernel; slot names the connection.
type event struct {
	slot        int
	read, write bool
	hangup      bool // both directions have ended, or the socket has failed
}

// maxEvents is how many reports one wait takes.
const maxEvents = 512
