// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"maps"
	"slices"

	"metsuke.dev/metsuke/node/cri"
)

// Status is how an installation is. Its JSON form is an interface: fields are added, and keep their meaning.
type Status struct {
	Installed   bool             `json:"installed"` // all is as Install would leave it
	Interrupted bool             `json:"interrupted"`
	Containerd  ContainerdStatus `json:"containerd"`
	Versions    []Version        `json:"versions"`
	Previous    string           `json:"previous,omitempty"`
	Handlers    []HandlerStatus  `json:"handlers"`
	Notes       []string         `json:"notes"`
	ToDo        []string         `json:"toDo"`              // what Install would do
	Problem     string           `json:"problem,omitempty"` // why it would not
}

// ContainerdStatus is which containerd, and where its configuration is.
type ContainerdStatus struct {
	Version string `json:"version"`
	Binary  string `json:"binary"`
	Config  string `json:"config"`
	DropIn  string `json:"dropIn,omitempty"`
}

// HandlerStatus is one of our handlers.
type HandlerStatus struct {
	Name    string `json:"name"`
	Plain   string `json:"plain,omitempty"`
	File    string `json:"file,omitempty"`
	Wanted  bool   `json:"wanted"`
	Written bool   `json:"written"`
	InForce bool   `json:"inForce"`
	Pods    int    `json:"pods"` // that run under it
}

// Status looks at the node and says how it is, measured by what Install would do with the source. It can run beside an installer.
func (n *Node) Status(ctx context.Context, source Source) (*Status, error) {
	v, err := n.look(ctx)
	if err != nil {
		return nil, err
	}
	s := &Status{
		Interrupted: v.record.Before != nil, Previous: v.record.Previous,
		Containerd: ContainerdStatus{Version: v.version.Text, Binary: n.Containerd.Binary, Config: n.Containerd.Config},
	}
	if v.state.Containerd.DropInText != "" {
		s.Containerd.DropIn = v.state.Containerd.DropIn
	}
	if s.Versions, _, err = n.versions(); err != nil {
		return nil, err
	}
	p, err := n.Plan(ctx, source)
	if err != nil {
		s.Problem = err.Error()
	}
	if p == nil {
		p = &Plan{}
	}
	s.Notes, s.ToDo = notNil(p.Notes), notNil(p.Steps())
	s.Installed = s.Problem == "" && len(s.ToDo) == 0 && !p.Restart && !s.Interrupted
	s.Handlers, err = n.handlerStatus(ctx, v, p)
	return s, err
}

func (n *Node) handlerStatus(ctx context.Context, v *view, p *Plan) ([]HandlerStatus, error) {
	found := map[string]*HandlerStatus{}
	at := func(name string) *HandlerStatus {
		if found[name] == nil {
			found[name] = &HandlerStatus{Name: name}
		}
		return found[name]
	}
	for _, h := range p.Handlers {
		s := at(h.Name)
		s.Plain, s.File, s.Wanted = h.Plain, h.File, true
		is, ok := v.inForce[h.Name]
		s.InForce = ok && h.inForce(is)
	}
	for _, name := range v.written {
		at(name).Written = true
	}
	for _, name := range n.everOurs(v) {
		s := at(name)
		if _, ok := v.inForce[name]; ok && !s.Wanted {
			s.InForce = true
		}
	}
	var pods []cri.Pod
	if v.forceErr == nil {
		var err error
		if pods, err = n.Service.Pods(ctx); err != nil {
			return nil, err
		}
	}
	for _, pod := range pods {
		if s := found[pod.Handler]; s != nil && pod.Ready {
			s.Pods++
		}
	}
	out := []HandlerStatus{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, *found[name])
	}
	return out, nil
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
