// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are where the programs of a run are.
type Programs struct {
	Etcd       string // directory of etcd
	Kubernetes string // directory of kube-apiserver and kubectl
	Metsuke    string // directory of metsuke
	Deploy     string // directory of the manifests
}

// ErrNotBuilt is that a program is not in the cache of tools.
var ErrNotBuilt = errors.New("not built yet")

// Find returns the programs of the checkout at root: metsuke of METSUKE_BIN or bin, the others from the cache of tools. It builds what
// the cache lacks if build says so, which takes up to a quarter of an hour; otherwise the error wraps ErrNotBuilt.
func Find(root string, build bool) (Programs, error) {
	p := Programs{Metsuke: os.Getenv("METSUKE_BIN"), Deploy: filepath.Join(root, "deploy")}
	if p.Metsuke == "" {
		p.Metsuke = filepath.Join(root, "bin")
	}
	if _, err := os.Stat(filepath.Join(p.Metsuke, "metsuke")); err != nil {
		return p, fmt.Errorf("%w (make build makes it)", err)
	}
	args := []string{"etcd", "kubernetes"}
	if !build {
		args = append([]string{"-cached"}, args...)
	}
	tools := exec.Command(filepath.Join(root, "integration", "tools", "build.sh"), args...)
	tools.Stderr = os.Stderr
	out, err := tools.Output()
	if err != nil {
		return p, fmt.Errorf("build etcd and Kubernetes: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		set, dir, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch set {
		case "etcd":
			p.Etcd = dir
		case "kubernetes":
			p.Kubernetes = dir
		}
	}
	if p.Etcd == "" || p.Kubernetes == "" {
		return p, fmt.Errorf("etcd and Kubernetes: %w", ErrNotBuilt)
	}
	return p, nil
}
