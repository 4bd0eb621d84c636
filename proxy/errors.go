package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-io/sluice/proxy/backend"
)

// Why a client's connection is closed.
var (
	errReplyLimit  = errors.New("replies waiting for their turn exceed the output limit")
	errHalfReply   = errors.New("connection to the node was lost in the middle of a reply")
	errDemoted     = errors.New("node is no master any more")
	errAuthTimeout = errors.New("no login within the authentication timeout")
	errIdle        = errors.New("idle for longer than the idle timeout")
	errLinger      = errors.New("client does not take its last replies")
)

// Texts of errors of ours. Each begins with a code that no Redis uses and says
// what happened and what the application can do.
const (
	textNoMaster = "SLUICE_NOMASTER no master can be reached; the command was not run. Try again once a master is back"
	textNoNode   = "SLUICE_NOREPLICA no node can answer this read now, neither a replica nor the master. Try again"
	textDraining = "SLUICE_TIMEOUT the proxy is shutting down; the command was not run. Connect again"
)

// errorCodes are the first words of the errors of ours, as deploy/METRICS.md
// explains them. The last is Redis's own word, by which client libraries know
// a transaction that has not run.
var errorCodes = [...]string{"SLUICE_NOMASTER", "SLUICE_NOREPLICA", "SLUICE_UNCERTAIN", "SLUICE_TIMEOUT", "SLUICE_DENIED", "EXECABORT"}

// codeOf returns the index in errorCodes of an error's code, -1 if it is none
// of ours.
func codeOf(text string) int {
	word, _, _ := strings.Cut(text, " ")
	return slices.Index(errorCodes[:], word)
}

// lostError explains a request whose connection died.
func lostError(r *request, sent bool, cause error) string {
	name := "the command"
	if r.cmd != nil {
		name = r.cmd.Name
	}
	switch {
	case r.Class == backend.Read:
		return textNoNode
	case sent:
		return fmt.Sprintf("SLUICE_UNCERTAIN %s was sent to the master and the connection died before its reply; "+
			"it may or may not have run. Read before you repeat it", name)
	default:
		return textNoMaster
	}
}

// deniedText refuses a command.
func deniedText(name string) string {
	return fmt.Sprintf("SLUICE_DENIED '%s' is not allowed through this proxy (denied_commands). Connect to the node itself", name)
}
