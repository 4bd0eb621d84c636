package check

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// kinds makes an empty object of each kind that the manifests may have.
var kinds = map[string]func() meta.Object{
	"v1 ConfigMap":        func() meta.Object { return new(core.ConfigMap) },
	"v1 Service":          func() meta.Object { return new(core.Service) },
	"apps/v1 Deployment":  func() meta.Object { return new(apps.Deployment) },
	"apps/v1 StatefulSet": func() meta.Object { return new(apps.StatefulSet) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() meta.Object { return new(monitoring.ServiceMonitor) },
}

// load decodes all manifests strictly: a key that the kind does not have is an
// error, and so is one that stands twice.
func load(t *testing.T) (objects []meta.Object) {
	t.Helper()
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("only %d manifests: %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range bytes.Split(b, []byte("\n---\n")) {
			where := fmt.Sprintf("%s, document %d", filepath.Base(file), i+1)
			var m meta.TypeMeta
			if err := yaml.Unmarshal(doc, &m); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			empty, ok := kinds[m.APIVersion+" "+m.Kind]
			if !ok {
				t.Errorf("%s: no kind %s of %s is known", where, m.Kind, m.APIVersion)
				continue
			}
			o := empty()
			if err := yaml.UnmarshalStrict(doc, o); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			if bad := validation.IsDNS1123Subdomain(o.GetName()); len(bad) > 0 {
				t.Errorf("%s: name %q: %v", where, o.GetName(), bad)
			}
			for k, v := range o.GetLabels() {
				if bad := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(bad) > 0 {
					t.Errorf("%s: label %s=%s: %v", where, k, v, bad)
				}
			}
			objects = append(objects, o)
		}
	}
	return objects
}

// pods returns the pod templates by the name of what makes them, and their
// selectors.
func pods(objects []meta.Object) (map[string]core.PodTemplateSpec, map[string]*meta.LabelSelector) {
	p, s := map[string]core.PodTemplateSpec{}, map[string]*meta.LabelSelector{}
	for _, o := range objects {
		switch o := o.(type) {
		case *apps.Deployment:
			p[o.Name], s[o.Name] = o.Spec.Template, o.Spec.Selector
		case *apps.StatefulSet:
			p[o.Name], s[o.Name] = o.Spec.Template, o.Spec.Selector
			for _, c := range o.Spec.VolumeClaimTemplates { // a volume to the pod
				t := p[o.Name]
				t.Spec.Volumes = append(slices.Clone(t.Spec.Volumes), core.Volume{Name: c.Name})
				p[o.Name] = t
			}
		}
	}
	return p, s
}

func find[T meta.Object](objects []meta.Object) (out []T) {
	for _, o := range objects {
		if o, ok := o.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// TestManifests checks what a strict decode cannot: that names which refer to
// something find it.
func TestManifests(t *testing.T) {
	objects := load(t)
	templates, selectors := pods(objects)
	if len(templates) != 3 {
		t.Errorf("%d kinds of pods, want 3", len(templates))
	}
	for name, pod := range templates {
		if sel, err := meta.LabelSelectorAsSelector(selectors[name]); err != nil || !sel.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s does not select its own pods: %v", name, err)
		}
		var volumes []string
		for _, v := range pod.Spec.Volumes {
			volumes = append(volumes, v.Name)
			if v.ConfigMap != nil && !slices.ContainsFunc(find[*core.ConfigMap](objects), func(c *core.ConfigMap) bool { return c.Name == v.ConfigMap.Name }) {
				t.Errorf("%s: no ConfigMap %s", name, v.ConfigMap.Name)
			}
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			for _, m := range c.VolumeMounts {
				if !slices.Contains(volumes, m.Name) {
					t.Errorf("%s: container %s mounts the volume %s, which is not there", name, c.Name, m.Name)
				}
			}
			if c.Name == "sluice" {
				checkSluice(t, name, pod.Spec, c)
			}
		}
		if *pod.Spec.TerminationGracePeriodSeconds <= 10 {
			t.Errorf("%s is killed before its drain of 10 s is over", name)
		}
	}
	checkServices(t, objects, templates)
}

// checkSluice checks probes, ports and rights of a sluice's container.
func checkSluice(t *testing.T, name string, pod core.PodSpec, c core.Container) {
	t.Helper()
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for what, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil {
			continue
		}
		if ports[probe.HTTPGet.Port.String()] != 9380 {
			t.Errorf("%s: the %s probe asks port %s of %v", name, what, probe.HTTPGet.Port.String(), ports)
		}
		if want := map[bool]string{true: "/healthz", false: "/readyz"}[what == "liveness"]; probe.HTTPGet.Path != want {
			t.Errorf("%s: the %s probe asks for %s, want %s", name, what, probe.HTTPGet.Path, want)
		}
	}
	if c.LivenessProbe == nil || c.ReadinessProbe == nil && c.StartupProbe == nil {
		t.Errorf("%s lacks probes", name)
	}
	if sc := c.SecurityContext; sc == nil || *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem || !slices.Contains(sc.Capabilities.Drop, "ALL") || !*pod.SecurityContext.RunAsNonRoot {
		t.Errorf("%s may do more than it needs", name)
	}
	if strings.Join(c.Args, " ") != "serve --config /etc/sluice/sluice.yml" {
		t.Errorf("%s is started as %v", name, c.Args)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
		t.Errorf("%s has no limits", name)
	}
}

// checkServices checks that each Service finds pods with the port it names, and
// the ServiceMonitor a Service.
func checkServices(t *testing.T, objects []meta.Object, templates map[string]core.PodTemplateSpec) {
	t.Helper()
	for _, s := range find[*core.Service](objects) {
		matched := 0
		for name, pod := range templates {
			if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				continue
			}
			matched++
			for _, p := range s.Spec.Ports {
				if !slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c core.Container) bool {
					return slices.ContainsFunc(c.Ports, func(cp core.ContainerPort) bool { return cp.Name == p.TargetPort.String() })
				}) {
					t.Errorf("Service %s: %s has no port %s", s.Name, name, p.TargetPort.String())
				}
			}
		}
		if want := map[string]int{"sluice-metrics": 3}[s.Name]; matched == 0 || want > 0 && matched != want {
			t.Errorf("Service %s finds %d kinds of pods", s.Name, matched)
		}
	}
	for _, m := range find[*monitoring.ServiceMonitor](objects) {
		sel, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil || !slices.ContainsFunc(find[*core.Service](objects), func(s *core.Service) bool {
			return sel.Matches(labels.Set(s.Labels)) && slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == m.Spec.Endpoints[0].Port })
		}) {
			t.Errorf("ServiceMonitor %s finds no Service with its port: %v", m.Name, err)
		}
	}
}
