// Package route decides where a request goes. Its decisions are pure: the
// command, what the session is doing, and what the nodes can serve go in; a
// target and the reason for it come out.
package route
