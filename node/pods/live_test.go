// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	tasktypes "github.com/containerd/containerd/api/types/task"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/node/pods/podstest"
)

// An agent sees the node's files below its own root; what it says of them are the node's paths.
func TestLiveBelowAnotherRoot(t *testing.T) {
	n := podstest.New(t)
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(n.Dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	start := audit.Event{Time: podstest.Moment, Kind: audit.KindStart, Receipt: &audit.Receipt{}}
	dir := n.Add(podstest.Pod{Namespace: "a", Name: "runs", ID: "aaaa", Shim: podstest.Deaf, Containers: []podstest.Container{
		{Name: "c", ID: "a1", State: tasktypes.Status_RUNNING, Events: []audit.Event{start}, Stalls: 4},
	}})
	n.Add(podstest.Pod{Namespace: "a", Name: "stuck", ID: "bbbb", Shim: podstest.Stuck, Containers: []podstest.Container{{Name: "c", ID: "b1"}}})
	if err := os.Rename(n.Dir, filepath.Join(root, n.Dir)); err != nil {
		t.Fatal(err)
	}
	list, err := (&Node{StateDir: n.State(), Root: root}).Live(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	runs, stuck := list[0], list[1]
	if runs.State != Running || runs.Shim.Dir != dir || len(runs.Containers) != 1 || stuck.State != Unreachable {
		t.Fatalf("%+v", list)
	}
	// Its delegate says nothing, and was not asked.
	c := runs.Containers[0]
	if c.State != string(Running) || c.Stream.Counts == nil || c.Stream.Counts.Starts != 1 || c.Stream.Stalls != 4 || !strings.HasPrefix(c.Stream.Dir, n.Audit()) {
		t.Errorf("%+v, %+v", c, c.Stream)
	}
	for _, c := range []Container{c, stuck.Containers[0]} {
		if c.Drift == nil || !c.Drift.Changed || c.Drift.Profile != "baseline" || c.Drift.Error != "" {
			t.Errorf("drift of %s: %+v", c.ID, c.Drift)
		}
	}
}
