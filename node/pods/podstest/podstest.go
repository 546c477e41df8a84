// SPDX-License-Identifier: Apache-2.0

// Package podstest makes nodes for tests: the state that shims leave on disk, streams, and shims that answer, or do not.
package podstest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/status"
)

// PID is the process id that shims say is theirs.
const PID = 4321

// Moment is when everything on a Node began, and what stopped stopped.
var Moment = time.Date(2026, 11, 21, 10, 31, 7, 0, time.UTC)

// Shim is how a pod's shim behaves.
type Shim int

// The ways of shims.
const (
	Answers  Shim = iota
	Stuck         // takes connections, and says nothing
	Killed        // its socket is there, and nobody listens
	Older         // answers as a delegate does a service that it does not know
	Deaf          // answers itself; its delegate says nothing
	Starting      // its pod's directory has no state yet
)

// Node is a node in a directory of its own.
type Node struct {
	t   testing.TB
	Dir string // short enough for sockets
}

// New makes a node without pods, which the end of the test removes.
func New(t testing.TB) *Node {
	t.Helper()
	dir, err := os.MkdirTemp("", "pods-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &Node{t, dir}
}

// State is the node's state directory.
func (n *Node) State() string { return filepath.Join(n.Dir, "state") }

// Audit is the directory of the node's streams.
func (n *Node) Audit() string { return filepath.Join(n.Dir, "audit") }

// Config is the path of the node's configuration file, which names its directories.
func (n *Node) Config() string {
	n.t.Helper()
	path := filepath.Join(n.Dir, "config.toml")
	if _, err := os.Stat(path); err != nil {
		n.must(os.MkdirAll(n.Profiles(), 0o755))
		n.must(os.WriteFile(path, fmt.Appendf(nil, "version = 1\n[directories]\nprofiles = %q\naudit = %q\nstate = %q\n",
			n.Profiles(), n.Audit(), n.State()), 0o600))
	}
	return path
}

// Profiles is the directory of the node's profiles.
func (n *Node) Profiles() string { return filepath.Join(n.Dir, "profiles") }

func (n *Node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// Pod is a pod to be made. The sandbox comes by itself.
type Pod struct {
	Namespace, Name string
	ID              string // of its sandbox
	Delegate        string // runtime type; empty: runc's
	Shim            Shim
	Phases          []status.Phase
	Containers      []Container
}

// Container is one of a pod's containers.
type Container struct {
	Name, ID    string
	Profile     string // empty: baseline
	Digest      string
	Image       string
	Passthrough bool
	Events      []audit.Event
	State       tasktypes.Status // UNKNOWN: the delegate does not know the container
	Exit        uint32
	Stats       proto.Message // nil: none
	Stalls      uint64
}

// Add makes a pod and returns its directory.
func (n *Node) Add(p Pod) (dir string) {
	n.t.Helper()
	key := make([]byte, 16)
	copy(key, p.ID)
	dir = filepath.Join(n.State(), hex.EncodeToString(key))
	n.must(os.MkdirAll(status.CgroupFile(dir, ""), 0o700))
	if p.Shim == Starting {
		return dir
	}
	process, err := delegate.Identify(os.Getpid())
	n.must(err)
	st := bootstrap.State{
		Version: 1, Namespace: "k8s.io", ID: p.ID, Bundle: filepath.Join(n.Dir, "bundles", p.ID), Dir: dir, Config: n.Config(),
		Address:  "unix://" + filepath.Join(n.Dir, p.ID[:min(12, len(p.ID))]+".sock"),
		Delegate: delegate.Instance{Binary: "/usr/bin/containerd-shim-runc-v2", Version: 3, Process: process},
	}
	n.write(filepath.Join(dir, "shim.json"), st)
	live := &status.Live{Version: "v1.2.3", PID: PID, Started: Moment, Containers: map[string]status.Container{}, Phases: p.Phases}
	n.record(&st, p, Container{ID: p.ID}, true)
	for _, c := range p.Containers {
		o := n.record(&st, p, c, false)
		if !c.Passthrough {
			of := n.stream(o, c.Events)
			of.Stalls = c.Stalls
			live.Containers[c.ID] = of
		}
	}
	n.serve(&st, p, live)
	return dir
}

func (n *Node) write(path string, v any) {
	n.t.Helper()
	data, err := json.Marshal(v)
	n.must(err)
	n.must(os.MkdirAll(filepath.Dir(path), 0o700))
	n.must(os.WriteFile(path, data, 0o600))
}

func (n *Node) record(st *bootstrap.State, p Pod, c Container, sandbox bool) *status.Owner {
	n.t.Helper()
	o := &status.Owner{
		Identity: audit.Identity{
			Node: "node-1", Namespace: p.Namespace, Pod: p.Name, PodUID: "uid-of-" + p.ID, Container: c.Name, ContainerID: c.ID,
			Profile: c.Profile, ProfileDigest: c.Digest,
		},
		Created: Moment, Sandbox: sandbox, Image: c.Image, Delegate: p.Delegate,
	}
	if o.Delegate == "" {
		o.Delegate = delegate.RuncType
	}
	if o.Identity.Profile == "" {
		o.Identity.Profile, o.Identity.ProfileDigest = "baseline", "77aa77aa77aa77aa"
	}
	if !sandbox && !c.Passthrough {
		o.Placement, o.Stream = "host", stream.Dir(n.Audit(), o.Identity)
	}
	raw, err := json.Marshal(o)
	n.must(err)
	n.must(os.WriteFile(status.CgroupFile(st.Dir, c.ID), nil, 0o600))
	n.write(filepath.Join(status.Bundle(st, c.ID), "metsuke.json"), bootstrap.Record{State: *st, Container: c.ID, Owner: raw})
	return o
}

func (n *Node) stream(o *status.Owner, events []audit.Event) status.Container {
	n.t.Helper()
	var counted tally.Tally
	w, err := stream.OpenWriter(o.Stream, o.Identity, stream.Options{Appended: counted.Add})
	n.must(err)
	for i := range events {
		n.must(w.Append(&events[i]))
	}
	counts := counted.Counts()
	c := status.Container{Seq: w.Seq(), Counts: &counts}
	n.must(w.Close())
	return c
}

func (n *Node) serve(st *bootstrap.State, p Pod, live *status.Live) {
	n.t.Helper()
	path, err := delegate.SocketPath(st.Address)
	n.must(err)
	l, err := net.Listen("unix", path)
	n.must(err)
	if p.Shim == Killed {
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		n.must(l.Close())
		return
	}
	n.t.Cleanup(func() { l.Close() })
	if p.Shim == Stuck {
		return
	}
	server := proxy.New(proxy.Config{
		Dial: func(context.Context) (net.Conn, error) { return nil, os.ErrNotExist },
		Intercept: func(*proxy.Call) proxy.Handler {
			return func(ctx context.Context, call *proxy.Call, _ proxy.Next) ([]byte, error) {
				return p.answer(ctx, call, live)
			}
		},
	})
	n.t.Cleanup(server.Close)
	go func() { _ = server.Serve(l) }()
}

func (p *Pod) answer(ctx context.Context, call *proxy.Call, live *status.Live) ([]byte, error) {
	if call.Service == status.Service && p.Shim != Older {
		return live.Answer()
	}
	if p.Shim == Deaf {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var req taskapi.StateRequest // of both methods the id has the same number
	if err := proto.Unmarshal(call.Payload, &req); err != nil {
		return nil, err
	}
	for _, c := range p.Containers {
		switch {
		case c.ID != req.ID || c.State == tasktypes.Status_UNKNOWN:
		case call.Method == "State":
			state := &taskapi.StateResponse{ID: c.ID, Status: c.State, Pid: 77}
			if c.State == tasktypes.Status_STOPPED {
				state.ExitStatus, state.ExitedAt = c.Exit, timestamppb.New(Moment)
			}
			return proto.Marshal(state)
		case call.Method == "Stats" && c.Stats != nil:
			metrics, err := anypb.New(c.Stats)
			if err != nil {
				return nil, err
			}
			return proto.Marshal(&taskapi.StatsResponse{Stats: metrics})
		}
	}
	if call.Service == status.Service {
		return nil, fmt.Errorf("service %s: %w", call.Service, errdefs.ErrNotImplemented)
	}
	return nil, fmt.Errorf("container %s: %w", req.ID, errdefs.ErrNotFound)
}
