// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/node/agent"
	"metsuke.dev/metsuke/node/mirror"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
)

// fleet is the agents of all nodes.
type fleet struct {
	plane          *plane
	settle, spread time.Duration
	tree           *tree.Tree // its directories are the profile directories of nodes
	nodes          []*simulated
	received       atomic.Uint64 // bytes on all connections, with TLS
	sent           atomic.Uint64
	running        sync.WaitGroup
	stopAll        context.CancelFunc
	mu             sync.Mutex
	connections    map[*counted]struct{}
}

// simulated is the agent of one node, and what was seen of it.
type simulated struct {
	name, token string

	mu      sync.Mutex
	inForce time.Time // when documents were last put in force
	digest  string    // that was acknowledged last
	acked   time.Time // when the API server had taken the first report with it
	reports int       // that the API server took
}

// newFleet makes n nodes known to the cluster. Its agents do not run yet.
func newFleet(ctx context.Context, p *plane, dir string, n int, settle, spread time.Duration) (*fleet, error) {
	files, err := tree.Open(dir)
	if err != nil {
		return nil, err
	}
	f := &fleet{plane: p, settle: settle, spread: spread, tree: files, nodes: make([]*simulated, n), stopAll: func() {}, connections: map[*counted]struct{}{}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range f.nodes {
		group.Go(func() error {
			s := &simulated{name: fmt.Sprintf("node-%05d", i)}
			f.nodes[i] = s
			var err error
			if s.token, err = p.join(ctx, s.name); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join(dir, s.name), 0o755)
		})
	}
	return f, group.Wait()
}

// start lets all agents run, at once. Their doctors work as long as doctor blocks.
func (f *fleet) start(ctx context.Context, doctor func(context.Context)) error {
	ctx, f.stopAll = context.WithCancel(ctx)
	for _, s := range f.nodes {
		a, err := f.agent(s, doctor)
		if err != nil {
			return err
		}
		f.running.Go(func() { _ = a.Run(ctx) }) // the error is that ctx ended
	}
	return nil
}

// stop ends all agents, and their connections with them.
func (f *fleet) stop() {
	f.stopAll()
	f.running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.connections {
		_ = c.Conn.Close() // nobody uses it any more
	}
	clear(f.connections)
}

func (f *fleet) close() error {
	f.stop()
	return f.tree.Close()
}

func (f *fleet) agent(s *simulated, doctor func(context.Context)) (*agent.Agent, error) {
	config := f.plane.as(s.token)
	config.UserAgent = "metsuke-node/rollout"
	config.Dial = f.dial // one that is set keeps client-go from sharing a connection
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &observed{next, s} })
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return agent.New(agent.Config{
		Client: client, Node: s.name, Version: "rollout", Settle: f.settle, Spread: f.spread, Examine: examine(doctor),
		Mirror: &mirror.Mirror{Tree: f.tree, Dir: "/" + s.name, Check: s.check},
	})
}

// dial counts what goes through the connection.
func (f *fleet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &counted{conn, f}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connections[c] = struct{}{}
	return c, nil
}

type counted struct {
	net.Conn
	f *fleet
}

func (c *counted) Close() error {
	c.f.mu.Lock()
	delete(c.f.connections, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.f.received.Add(uint64(max(n, 0))) //nolint:gosec // never negative
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.f.sent.Add(uint64(max(n, 0))) //nolint:gosec // never negative
	return n, err
}

// ready is the handler that is ready on all nodes.
const ready = "metsuke-runc"

// examine answers for the doctor.
func examine(doctor func(context.Context)) func(context.Context) []v1alpha1.HandlerStatus {
	return func(ctx context.Context) []v1alpha1.HandlerStatus {
		doctor(ctx)
		return []v1alpha1.HandlerStatus{{Name: ready, Ready: true}, {Name: "metsuke-kata", Reason: "delegate: Kata's shim is not found on this node"}}
	}
}

// check is asked just before documents come into force.
func (s *simulated) check(*profile.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inForce = time.Now()
	return nil
}

// observed notes which reports the API server took.
type observed struct {
	http.RoundTripper
	s *simulated
}

func (o *observed) RoundTrip(r *http.Request) (*http.Response, error) {
	var digest string
	if r.Method == http.MethodPatch {
		var err error
		if digest, err = reportedDigest(r); err != nil {
			return nil, err
		}
	}
	response, err := o.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == http.MethodPatch && response.StatusCode == http.StatusOK {
		o.s.reported(digest)
	}
	return response, err
}

// errNoReport is that a request that should be a report is none.
var errNoReport = errors.New("the request is no report of a node's state")

func (s *simulated) reported(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports++
	if digest != s.digest {
		s.digest, s.acked = digest, time.Now()
	}
}
