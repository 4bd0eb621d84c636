package syncer

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// The pauses between attempts to open a store again whose disk fails.
const (
	DefaultReopenMin = time.Second
	DefaultReopenMax = 30 * time.Second
)

// Options configure a [Relay]. Zero fields take their defaults.
type Options struct {
	Dir string // of the store; it is made if it is not there

	// Logger and Registerer of these are set from those below.
	Store    store.Options
	Upstream upstream.Options
	// Downstream is the server for replicas; there is none if Listen is empty.
	Downstream downstream.Options

	ReopenMin time.Duration // first pause before an unsafe store is tried to be opened again; doubles
	ReopenMax time.Duration

	Logger     *zap.Logger           // nil logs nothing
	Registerer prometheus.Registerer // nil registers nothing
}

func (o *Options) complete() error {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.ReopenMin == 0 {
		o.ReopenMin = DefaultReopenMin
	}
	if o.ReopenMax == 0 {
		o.ReopenMax = DefaultReopenMax
	}
	o.Store.Logger, o.Store.Registerer = o.Logger.Named("store"), o.Registerer
	o.Upstream.Logger, o.Upstream.Registerer = o.Logger, o.Registerer
	o.Downstream.Logger, o.Downstream.Registerer = o.Logger, o.Registerer
	if o.Dir == "" {
		return errors.New("check Dir: no directory is given for the store")
	}
	if o.Downstream.Listen == "" {
		if o.Upstream.Ack == upstream.AckDownstream {
			return fmt.Errorf("check Upstream.Ack: %q needs a server for replicas, Downstream.Listen", upstream.AckDownstream)
		}
		return errors.Join(o.Store.Check(), o.Upstream.Check())
	}
	return errors.Join(o.Store.Check(), o.Upstream.Check(), o.Downstream.Check())
}
