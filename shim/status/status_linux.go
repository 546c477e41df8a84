// SPDX-License-Identifier: Apache-2.0

// Package status is what a shim tells others on its node: in the records that it leaves on disk ([Owner]), and when it
// is asked over its own socket ([Live]). The client's end is here too.
//
// The shim answers from its memory alone and holds up nothing. What a container's state and usage are, only its
// delegate knows: those are calls of the Task API that pass through the shim as containerd's do.
//
// The two forms are read by other versions: fields are added and never change their meaning.
package status

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/shim/bootstrap"
)

// The service that a shim serves beside the Task API: Get takes a google.protobuf.Empty and returns a Live as JSON in a
// google.protobuf.BytesValue.
const (
	Service = "metsuke.shim.v1.Status"
	Method  = "Get"
)

// Owner is what a container's record (bootstrap.Record) keeps for the delete action of a later process, and for
// whoever looks at the node.
type Owner struct {
	Stream   string         `json:"stream,omitempty"` // directory of the container's stream, on the host; empty: it has none
	Identity audit.Identity `json:"identity"`
	Key      string         `json:"key,omitempty"`    // file of the key that the stream is signed with; empty: it is not
	Cgroup   string         `json:"cgroup,omitempty"` // linux.cgroupsPath

	Created   time.Time `json:"created"`             // when its Create came
	Sandbox   bool      `json:"sandbox,omitempty"`   // the pod's pause container
	Image     string    `json:"image,omitempty"`     // as the pod names it
	Asked     *string   `json:"asked,omitempty"`     // the pod's annotation profile.Annotation; nil: it has none
	Delegate  string    `json:"delegate,omitempty"`  // runtime type of the delegate
	Placement string    `json:"placement,omitempty"` // of its supervisor; empty: it has none
}

// ReadOwner reads the record in a bundle. The error wraps os.ErrNotExist when there is none, or one without an owner: a
// container whose Create has not come yet.
func ReadOwner(bundle string) (*Owner, error) {
	r, err := bootstrap.ReadRecord(bundle)
	if err != nil {
		return nil, err
	}
	if len(r.Owner) == 0 {
		return nil, fmt.Errorf("record in %s has no owner yet: %w", bundle, os.ErrNotExist)
	}
	var o Owner
	if err := json.Unmarshal(r.Owner, &o); err != nil {
		return nil, fmt.Errorf("record in %s: %w", bundle, err)
	}
	return &o, nil
}

// CgroupFile is where a pod's directory says which cgroup a container has, from its Create to its Delete.
func CgroupFile(podDir, container string) string { return filepath.Join(podDir, "cgroups", container) }

// Containers are the ids of a pod's containers, the sandbox's among them, sorted.
func Containers(podDir string) ([]string, error) {
	entries, err := os.ReadDir(CgroupFile(podDir, ""))
	if err != nil {
		return nil, fmt.Errorf("containers of a pod: %w", err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	slices.Sort(ids)
	return ids, nil
}

// Bundle is the bundle of a container of a pod: containerd has those of one namespace side by side, by container id
// (core/runtime/v2/bundle.go of containerd 2, runtime/v2/bundle.go of 1.7).
func Bundle(st *bootstrap.State, container string) string {
	return filepath.Join(filepath.Dir(st.Bundle), container)
}

// Live is what a shim knows of itself and of the containers that it supervises.
type Live struct {
	Version    string               `json:"version"` // of Metsuke
	PID        int                  `json:"pid"`
	Started    time.Time            `json:"started"`
	Containers map[string]Container `json:"containers"`       // by id; neither the sandbox nor those under passthrough
	Phases     []Phase              `json:"phases,omitempty"` // of the starts of its containers so far; of the sandbox's, failures alone
}

// Container is what the shim has counted since the container's Create.
type Container struct {
	Seq    uint64        `json:"seq"`    // number of the last record of its stream, earlier instances' included
	Counts *tally.Counts `json:"counts"` // nil: they did not fit into the answer
	Stalls uint64        `json:"stalls"` // audited calls that had to wait because the stream could not be written
}

// maxAnswer is how long the counts of an answer may be, in bytes of JSON. An answer of ttrpc has at most 4 MiB, and a guest that
// was taken over can make up names of rules.
const maxAnswer = 3 << 20

// Answer encodes the answer of Get. If it is too long, the longest counts are left out: those of the other containers come.
func (l *Live) Answer() ([]byte, error) {
	lengths, total := map[string]int{}, 0
	for id, c := range l.Containers {
		data, err := json.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("status: %w", err)
		}
		lengths[id] = len(data)
		total += len(data)
	}
	longest := slices.SortedFunc(maps.Keys(lengths), func(a, b string) int { return lengths[b] - lengths[a] })
	fitting := *l
	fitting.Containers = maps.Clone(l.Containers)
	for _, id := range longest {
		if total <= maxAnswer {
			break
		}
		fitting.Containers[id] = Container{Seq: l.Containers[id].Seq, Stalls: l.Containers[id].Stalls}
		total -= lengths[id]
	}
	data, err := json.Marshal(fitting)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	return proto.Marshal(wrapperspb.Bytes(data))
}

// Container returns what the shim knows of a container. l may be nil: nothing then.
func (l *Live) Container(id string) (Container, bool) {
	if l == nil {
		return Container{}, false
	}
	c, ok := l.Containers[id]
	return c, ok
}
