// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
)

// A Spec is the content of a config.json: OCI runtime-spec, config.md.
type Spec struct{ root *object }

// An Edit changes one thing in a Spec. After an error the Spec must not be used.
type Edit func(*Spec) error

func parseSpec(raw []byte) (*Spec, error) {
	if err := checkNames(raw); err != nil {
		return nil, err
	}
	root, err := parseObject("config.json", raw)
	if err != nil {
		return nil, err
	}
	return &Spec{root: root}, nil
}

// OnProcess makes edits to the process that the container starts.
func OnProcess(edits ...ProcessEdit) Edit {
	return func(s *Spec) error {
		p, err := s.Process()
		if err != nil {
			return err
		}
		return p.apply(edits)
	}
}

// Process returns the container's process. There is none in a container that only makes namespaces; the
// delegate cannot start it, and neither can we.
func (s *Spec) Process() (*Process, error) {
	o, err := s.root.child("process")
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("config.json has no process to start")
	}
	return &Process{o}, nil
}

// ClampLimits lowers linux.resources to the ceilings l, which must come from Host.Resolve, and appends what was
// lowered to changes.
func ClampLimits(l cgroups.Limits, v cgroups.Version, changes *[]cgroups.Change) Edit {
	return func(s *Spec) error {
		if l.IsZero() {
			return nil
		}
		linux, err := s.root.ensure("linux")
		if err != nil {
			return err
		}
		o, err := linux.ensure("resources")
		if err != nil {
			return err
		}
		return editResources(o, func(r *specs.LinuxResources) error {
			c, err := cgroups.Clamp(r, l, v)
			*changes = append(*changes, c...)
			return err
		})
	}
}

// Resources returns linux.resources; an empty value where there are none.
func (s *Spec) Resources() (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{}
	linux, err := s.root.child("linux")
	if linux == nil || err != nil {
		return r, err
	}
	_, err = linux.get("resources", r)
	return r, err
}

// EditResources edits the JSON of an OCI linux.resources, as an Update request carries it, and keeps what the
// edit does not change, fields unknown to us included.
func EditResources(raw []byte, edit func(*specs.LinuxResources) error) ([]byte, error) {
	if len(raw) > MaxConfig {
		return nil, fmt.Errorf("resources: larger than %d bytes", MaxConfig)
	}
	if err := checkNames(raw); err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	o, err := parseObject("resources", raw)
	if err != nil {
		return nil, err
	}
	if err := editResources(o, edit); err != nil {
		return nil, err
	}
	return o.append(nil), nil
}

// TakeSeccomp removes linux.seccomp and stores it in profile; nil if the pod is unconfined. A profile with a
// member that we do not know is refused: leaving it out could leave a rule out.
func TakeSeccomp(profile **specs.LinuxSeccomp) Edit {
	return func(s *Spec) error {
		*profile = nil
		linux, err := s.root.child("linux")
		if linux == nil || err != nil {
			return err
		}
		m, err := linux.find("seccomp")
		if m == nil || err != nil {
			return err
		}
		dec := json.NewDecoder(bytes.NewReader(m.raw))
		dec.DisallowUnknownFields()
		p := &specs.LinuxSeccomp{}
		if err := dec.Decode(p); err != nil {
			return fmt.Errorf("linux.seccomp cannot be carried as it is: %w", err)
		}
		linux.remove("seccomp")
		*profile = p
		return nil
	}
}

// Annotations of containerd's CRI plugin (pkg/cri/annotations), alike in 1.7 and 2.x.
const (
	annotationType          = "io.kubernetes.cri.container-type"
	annotationSandboxID     = "io.kubernetes.cri.sandbox-id"
	annotationSandboxName   = "io.kubernetes.cri.sandbox-name"
	annotationNamespace     = "io.kubernetes.cri.sandbox-namespace"
	annotationUID           = "io.kubernetes.cri.sandbox-uid"
	annotationContainerName = "io.kubernetes.cri.container-name"
	annotationImage         = "io.kubernetes.cri.image-name"

	nerdctlName = "nerdctl/name"
)

// An Identity says whose container this is. Of a container that CRI did not make, the pod is the container
// itself.
type Identity struct {
	CRI       bool   // the annotations of CRI are there
	Sandbox   bool   // the pod's pause container
	SandboxID string // containerd id of the pod's sandbox
	Namespace string // Kubernetes namespace; without CRI that of containerd
	Pod       string
	PodUID    string
	Container string // name in the pod; empty for a sandbox
	Image     string
}

// Identity reads the annotations. containerdNamespace and id are those of the task, for containers that ctr or
// nerdctl made.
func (s *Spec) Identity(containerdNamespace, id string) (Identity, error) {
	a, err := s.Annotations()
	if err != nil {
		return Identity{}, err
	}
	if a[annotationType] == "" {
		name := a[nerdctlName]
		if name == "" {
			name = id
		}
		return Identity{SandboxID: id, Namespace: containerdNamespace, Pod: name, Container: name}, nil
	}
	return Identity{
		CRI: true, Sandbox: a[annotationType] == "sandbox", SandboxID: a[annotationSandboxID],
		Namespace: a[annotationNamespace], Pod: a[annotationSandboxName], PodUID: a[annotationUID],
		Container: a[annotationContainerName], Image: a[annotationImage],
	}, nil
}

// IsSandbox reports whether this is the pause container of a pod.
func (s *Spec) IsSandbox() (bool, error) {
	id, err := s.Identity("", "")
	return id.Sandbox, err
}

// Annotations returns the annotations; never nil. The pod's own are among them where containerd's
// pod_annotations lets them through; CRI's are written after those and win.
func (s *Spec) Annotations() (map[string]string, error) {
	a := map[string]string{}
	_, err := s.root.get("annotations", &a)
	if a == nil {
		a = map[string]string{}
	}
	return a, err
}

func hasPrefixPath(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
