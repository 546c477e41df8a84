// SPDX-License-Identifier: Apache-2.0

// Package shim is the task service of one pod: what happens to each request on its way from containerd to the
// delegate. It is the only place that knows all of Metsuke's features.
//
// Five methods of the Task service are changed (Create, Start, Exec, Update, Delete); every other call, and
// every other service, passes through shim/proxy as it came.
package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/proxy"
)

// Options are what a Service needs.
type Options struct {
	Config *config.Config
	Pod    *bootstrap.Pod
}

// Service changes the requests of one pod. Its methods may be called concurrently: each container has locks of its
// own, and none is held while a delegate, a disk or a workload is waited for.
type Service struct {
	Options
	delegate *anypb.Any // the delegate's own runtime options, nil for none
	host     *cgroups.Host
	helper   string
	helperID rendezvous.FileID
	node     string

	mu         sync.Mutex
	containers map[string]*container // guarded by mu; nil value: not ours to change
}

// New returns a Service. It fails if the helper is not there or the node's cgroups cannot be made out, so that the
// pod is refused and not its third container.
func New(o Options) (*Service, error) {
	helper, err := helperPath(o.Config)
	if err != nil {
		return nil, err
	}
	helperID, err := rendezvous.IdentifyFile(helper)
	if err != nil {
		return nil, fmt.Errorf("helper for containers: %w; install metsuke-guest beside the shim, or set supervisor.helper", err)
	}
	delegate, err := o.Pod.Settings.Delegate.Options()
	if err != nil {
		return nil, err
	}
	host, err := cgroups.Detect("")
	if err != nil {
		return nil, err
	}
	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of the node: %w", err)
	}
	return &Service{
		Options: o, delegate: delegate, host: host, helper: helper, helperID: helperID, node: node,
		containers: map[string]*container{},
	}, nil
}

// helperPath returns the absolute path of the helper: as configured, or beside our own binary.
func helperPath(cfg *config.Config) (string, error) {
	if cfg.Supervisor.Helper != "" {
		return cfg.Supervisor.Helper, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find our own executable: %w", err)
	}
	return filepath.Join(filepath.Dir(self), "metsuke-guest"), nil
}

// Intercept returns the handler of a call, or nil if it passes as it is. It fits proxy.Config.
func (s *Service) Intercept(call *proxy.Call) proxy.Handler {
	if call.Service != "containerd.task.v2.Task" && call.Service != "containerd.task.v3.Task" {
		return nil
	}
	switch call.Method {
	case "Create":
		return s.create
	case "Start":
		return s.start
	case "Exec":
		return s.exec
	case "Update":
		return s.update
	case "Delete":
		return s.delete
	}
	return nil
}

// Close ends the supervision of all containers: for a pod whose delegate is gone.
func (s *Service) Close() {
	s.mu.Lock()
	all := s.containers
	s.containers = nil
	s.mu.Unlock()
	for _, c := range all {
		if c != nil && c != creating {
			c.close()
		}
	}
}

// errUnknown refuses what names a container that never came through Create here.
func errUnknown(id string) error { return fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound) }

// lookup returns the container; managed is false for one that is not ours to change.
func (s *Service) lookup(id string) (c *container, managed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok || c == creating {
		return nil, false, errUnknown(id)
	}
	return c, c != nil, nil
}

// decode reads a request. The Task API's messages have one wire form in v2 and v3; fields that we do not know are
// kept and written again.
func decode(payload []byte, m proto.Message) error {
	if err := proto.Unmarshal(payload, m); err != nil {
		return fmt.Errorf("decode %s: %w: %w", m.ProtoReflect().Descriptor().Name(), errdefs.ErrInvalidArgument, err)
	}
	return nil
}

// forward encodes a changed request and passes it on.
func forward(ctx context.Context, next proxy.Next, m proto.Message) ([]byte, error) {
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return next(ctx, payload)
}
