// Package check holds the test of the manifests in deploy/k8s: a module of its
// own, so that Kubernetes' packages are no dependency of sluice.
package check
