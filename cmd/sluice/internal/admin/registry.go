package admin

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a registry with Go's and the process's metrics and
// sluice_build_info, whose value is always 1. The proxy registers its own
// metrics there (proxy.Options.Registerer).
func NewRegistry(version, revision, goVersion string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_build_info",
			Help: "Always 1; the labels say what is running.",
			ConstLabels: prometheus.Labels{
				"version": version, "revision": revision, "goversion": goVersion,
			},
		}, func() float64 { return 1 }),
	)
	return reg
}
