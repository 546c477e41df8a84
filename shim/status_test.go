// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/status"
)

// waiting is a supervision whose calls had to wait.
type waiting struct{ supervision }

func (waiting) stalls() uint64 { return 3 }

// The shim answers for its containers by itself: its delegate is not there at all, nor do the streams exist.
func TestStatusAnswersFromMemory(t *testing.T) {
	c := &container{earlier: 40, super: waiting{}}
	c.tally.Add(&audit.Event{Kind: audit.KindStart, Receipt: &audit.Receipt{}}, stream.Position{Segment: 2})
	s := &Service{started: time.Unix(1_800_000_000, 0).UTC(), containers: map[string]*container{
		"ours": c, "pause": nil, "coming": creating,
	}}
	s.phases.Failed(status.PhaseRewrite)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := proxy.New(proxy.Config{
		Dial:      func(context.Context) (net.Conn, error) { return nil, os.ErrNotExist },
		Intercept: s.Intercept,
	})
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	client := status.NewClient(&bootstrap.State{Address: "unix://" + path, Delegate: delegate.Instance{Version: 3}})
	live, err := client.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if live.PID != os.Getpid() || live.Version == "" || !live.Started.Equal(s.started) || len(live.Containers) != 1 ||
		len(live.Phases) != 4 || live.Phases[1].Failed != 1 {
		t.Errorf("%+v", live)
	}
	got := live.Containers["ours"]
	if got.Seq != 41 || got.Stalls != 3 || got.Counts.Records != 1 || got.Counts.Places.Start == nil || *got.Counts.Places.Start != (stream.Position{Segment: 2}) {
		t.Errorf("%+v", got)
	}
}

// Of each container it is on disk who it is and what it got, also of those that nothing is changed of.
func TestOwnersAreOnDisk(t *testing.T) {
	const binding = `
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: default}
spec: {namespaces: [default], default: baseline, allowed: [passthrough]}
`
	asked := func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Annotations[profile.Annotation] = name }
	}
	for _, test := range []struct {
		name                       string
		spec                       *specs.Spec
		profile, placement, choice string
		sandbox, stream            bool
	}{
		{"supervised", podSpec("container", nil), "baseline", "guest", "", false, true},
		{"passthrough", podSpec("container", asked("passthrough")), "passthrough", "", "passthrough", false, false},
		{"sandbox", podSpec("sandbox", nil), "baseline", "", "", true, false},
	} {
		s := kataService(t, func(c *config.Config) {
			if err := os.WriteFile(filepath.Join(c.Directories.Profiles, "b.yaml"), []byte(binding), 0o600); err != nil {
				t.Fatal(err)
			}
		})
		_, dir, err := kataCreate(t, s, test.spec, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		o, err := status.ReadOwner(dir)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		choice := ""
		if o.Asked != nil {
			choice = *o.Asked
		}
		id := o.Identity
		if id.Namespace != "default" || id.Pod != "p" || id.PodUID != "u" || id.ContainerID != "c" || id.Profile != test.profile || len(id.ProfileDigest) != 64 ||
			o.Delegate != "io.containerd.kata.v2" || o.Cgroup != "/pod/c" || o.Created.IsZero() || o.Sandbox != test.sandbox ||
			o.Placement != test.placement || (o.Stream != "") != test.stream || choice != test.choice {
			t.Errorf("%s: %+v", test.name, o)
		}
		if ids, err := status.Containers(s.Pod.Dir); err != nil || !slices.Equal(ids, []string{"c"}) {
			t.Errorf("%s: containers %q, %v", test.name, ids, err)
		}
		if ours := s.supervised(); (ours["c"] != nil) != test.stream {
			t.Errorf("%s: supervised %v", test.name, ours)
		}
	}
}
