// SPDX-License-Identifier: Apache-2.0

// Package shim is the task service of one pod: what happens to each request on its way from containerd to the
// delegate. It is the only place that knows all of Metsuke's features.
//
// Five methods of the Task service are changed (Create, Start, Exec, Update, Delete), and two answers (Pids, Stats); with a VM
// CloseIO waits and CreateSandbox may be refused, in guest placement without one Pause is refused. One service is our own
// (shim/status). Every other call, and every other service, passes through shim/proxy as it came.
package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/status"
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
	options *anypb.Any // the delegate's own, nil for none
	traits  delegate.Traits
	host    *cgroups.Host
	version cgroups.Version // of the containers' cgroups: the node's, or the guest's
	helper  string          // its path on the host
	node    string
	started time.Time
	phases  status.Phases
	key     *signature.Key // that streams are signed with
	budget  *stream.Budget // of the disk, for the streams of this pod

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
	if _, err := os.Stat(helper); err != nil {
		return nil, fmt.Errorf("helper for containers: %w; install metsuke-guest beside the shim, or set supervisor.helper", err)
	}
	options, err := o.Pod.Settings.Delegate.Options()
	if err != nil {
		return nil, err
	}
	host, err := cgroups.Detect("")
	if err != nil {
		return nil, err
	}
	traits, version := o.Pod.Settings.Delegate.Traits(), host.Version
	if traits.Sandboxed {
		version = cgroups.V2
		if strings.Contains(helper, "/proc/") || strings.Contains(helper, "/sys/") { // anywhere: is_system_mount of runtime-rs
			return nil, fmt.Errorf("helper for containers: Kata takes %s for a path of its guest's: set supervisor.helper to one without "+
				"/proc/ and /sys/", helper)
		}
	}
	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of the node: %w", err)
	}
	key, err := signingKey(&o.Config.Audit)
	if err != nil {
		return nil, err
	}
	return &Service{
		Options: o, options: options, traits: traits, host: host, version: version, helper: helper, node: node, started: time.Now(), key: key,
		budget:     stream.NewBudget(o.Config.Directories.Audit, o.Config.Audit.PodBudget, o.Config.Audit.NodeBudget),
		containers: map[string]*container{},
	}, nil
}

// signingKey returns the node's key: the one that the configuration names, or its own, which the first pod makes.
func signingKey(a *config.Audit) (*signature.Key, error) {
	if !a.KeyNamed {
		return signature.LoadOrMake(a.Key)
	}
	key, err := signature.Load(a.Key)
	if err != nil {
		return nil, fmt.Errorf("%w; make it, or correct audit.key", err)
	}
	return key, nil
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
	if call.Service == sandboxService && call.Method == "CreateSandbox" && s.traits.Sandboxed {
		return s.createSandbox
	}
	if call.Service == status.Service && call.Method == status.Method {
		return s.status
	}
	if call.Service != "containerd.task.v2.Task" && call.Service != "containerd.task.v3.Task" {
		return nil
	}
	if handler := hide(call); handler != nil {
		return handler
	}
	switch call.Method {
	case "Create":
		return s.create
	case "Start":
		return ofOurs(s, s.start)
	case "Exec":
		return ofOurs(s, s.exec)
	case "Update":
		return ofOurs(s, s.update)
	case "Delete":
		return s.delete
	case "CloseIO":
		if s.traits.CloseIOWaits {
			return ofOurs(s, s.closeIO)
		}
	case "Pause":
		if s.traits.FreezeWaits && s.inTheGuest() {
			return ofOurs(s, s.pause)
		}
	case "Pids":
		return s.pids
	case "Stats":
		return ofOurs(s, s.stats)
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

// lookup returns the container; nil for one that is not ours to change.
func (s *Service) lookup(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok || c == creating {
		return nil, errUnknown(id)
	}
	return c, nil
}

// ofOurs returns the handler of a method that handle changes for the containers that are ours to change. For others it passes as
// it came.
func ofOurs[T any, R interface {
	*T
	proto.Message
	GetID() string
}](s *Service, handle func(ctx context.Context, c *container, req R, call *proxy.Call, next proxy.Next) ([]byte, error)) proxy.Handler {
	return func(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
		req := R(new(T))
		if err := decode(call.Payload, req); err != nil {
			return nil, err
		}
		c, err := s.lookup(req.GetID())
		if err != nil {
			return nil, err
		}
		if c == nil {
			return next(ctx, call.Payload)
		}
		return handle(ctx, c, req, call, next)
	}
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
