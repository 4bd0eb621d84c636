package proxy

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy/route"
)

const metricsPage = "../deploy/METRICS.md"

// builtElsewhere are in the page, but not of this package: TestMetricsPage in
// cmd/sluice compares them.
var builtElsewhere = regexp.MustCompile(`^sluice_(build|relay|store)_`)

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\| \\w+ \\| ([^|]*)\\|")
	descText  = regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{(.*?)\}`)
)

// TestMetricsAreDocumented compares all that the collector may ever send with
// deploy/METRICS.md: names and labels, in both directions. Types and values are
// compared on a running binary, in cmd/sluice.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range metricRow.FindAllStringSubmatch(string(page), -1) {
		if _, twice := documented[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		documented[m[1]] = strings.NewReplacer("`", "", " ", "").Replace(m[2])
	}
	maps.DeleteFunc(documented, func(name, _ string) bool { return builtElsewhere.MatchString(name) })

	// Not from Describe or Collect: those know only what there is to report now.
	registered := map[string]string{}
	c := reflect.ValueOf(newCollector(nil)).Elem()
	for i := range c.NumField() {
		if f := c.Field(i); f.Type() == reflect.TypeFor[*prometheus.Desc]() {
			name := c.Type().Field(i).Name
			if f.IsNil() {
				t.Errorf("collector.%s is nil", name)
				continue
			}
			m := descText.FindStringSubmatch((*prometheus.Desc)(f.UnsafePointer()).String())
			if m == nil {
				t.Fatalf("the description of collector.%s is not understood", name)
			}
			registered[m[1]] = m[2]
		}
	}
	if len(registered) < 10 {
		t.Errorf("only %d metrics were found in the collector", len(registered))
	}
	if d := cmp.Diff(registered, documented); d != "" {
		t.Errorf("deploy/METRICS.md differs from the code (-code +page):\n%s", d)
	}
}

// TestReasonsAreDocumented compares the values of
// sluice_proxy_routed_total{reason} with the table that explains them.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Why did this read hit the master?\n")
	if !ok {
		t.Fatal("the section that explains the reasons is gone")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section, -1) {
		documented[m[1]]++
	}
	inCode := map[string]int{}
	for r := range route.NumReasons {
		inCode[r.String()]++
	}
	if d := cmp.Diff(inCode, documented); d != "" {
		t.Errorf("deploy/METRICS.md differs from route.Reason (-code +page):\n%s", d)
	}
}
