// SPDX-License-Identifier: Apache-2.0

// Package sandbox holds the containers of a pod in the guest and their processes, and runs them with runc where the real
// agent has a jail of its own. The references are to Kata Containers 4.1.0: AG is src/agent/src, RJ is
// src/agent/rustjail/src.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
)

// What requests fail with, where the code of the answer tells them apart.
var (
	ErrNoContainer = errors.New("Invalid container id")
	ErrNoInit      = errors.New("cannot find init process!")
	ErrNoExec      = errors.New("Invalid exec id")
	ErrNoTerminal  = errors.New("no tty")
)

// Paths are the places in the guest that a sandbox uses.
type Paths struct {
	Base       string // one directory a container: its bundle (AG/rpc.rs CONTAINER_BASE)
	Shared     string // what the shim copies into, and names in its requests (KATA_GUEST_SHARE_DIR)
	Host       string // where the host's directory of shared things is mounted; "" if it is not
	Cgroups    string // root of the cgroup v2 hierarchy
	Namespaces string // where the sandbox's namespaces are bound (AG/namespace.rs)
	Runc       string // the runc binary
	RuncState  string // runc's --root
}

// Guest are the paths in the stand's guest.
func Guest() Paths {
	return Paths{
		Base:       "/run/kata-containers",
		Shared:     "/run/kata-containers/shared/containers",
		Host:       "/run/virtiofs",
		Cgroups:    "/sys/fs/cgroup",
		Namespaces: "/run/sandbox-ns",
		Runc:       "/bin/runc",
		RuncState:  "/run/runc",
	}
}

// Sandbox is the pod in this guest. Its methods may be called at once from many goroutines; as in the real agent a container
// is created or an exec started one at a time, and nothing else waits for that.
type Sandbox struct {
	paths    Paths
	making   sync.Mutex      // held while runc makes a container or an exec; taken before mu
	storages map[string]bool // mount points; protected by making
	children children

	mu         sync.Mutex
	id         string                // protected by mu
	containers map[string]*container // protected by mu
	ipc, uts   string                // paths of the shared namespaces; protected by mu
	pid        string                // of the shared pid namespace, once there is one; protected by mu

	oom       chan string   // ids of containers
	destroyed chan struct{} // closed by Destroy
	once      sync.Once
}

// New is a sandbox without containers.
func New(p Paths) *Sandbox {
	return &Sandbox{
		paths:      p,
		storages:   map[string]bool{},
		children:   children{process: map[int]*process{}},
		containers: map[string]*container{},
		oom:        make(chan string, 100),
		destroyed:  make(chan struct{}),
	}
}

// Create makes the shared namespaces and mounts the storages of the sandbox (AG/rpc.rs create_sandbox). The real agent first
// removes all below its base directory, which in this guest is empty at that time.
func (s *Sandbox) Create(req *grpc.CreateSandboxRequest) error {
	if err := os.MkdirAll(s.paths.Shared, 0o755); err != nil {
		return fmt.Errorf("create a sandbox: %w", err)
	}
	ipc, uts, err := shareNamespaces(s.paths.Namespaces, req.Hostname)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.id, s.ipc, s.uts = req.SandboxId, ipc, uts
	s.mu.Unlock()
	return s.mountStorages(req.Storages)
}

// Destroy ends all containers and every wait for an event (AG/rpc.rs destroy_sandbox). The guest then waits for its end.
func (s *Sandbox) Destroy() error {
	s.mu.Lock()
	var ids []string
	for id := range s.containers {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, s.Remove(id))
	}
	s.once.Do(func() { close(s.destroyed) })
	return errors.Join(errs...)
}

// OOMEvent blocks until the kernel has killed a process of a container for its memory, and gives the container's id, once a
// container (AG/rpc.rs get_oom_event). It fails when the sandbox is destroyed or ctx ends.
func (s *Sandbox) OOMEvent(ctx context.Context) (string, error) {
	select {
	case id := <-s.oom:
		return id, nil
	case <-s.destroyed:
		return "", errors.New("the sandbox is destroyed")
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// container finds a container by its id.
func (s *Sandbox) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, ErrNoContainer
	}
	return c, nil
}

// process finds a process of a container: exec is the id of an exec, or the container's own or "" for its first process
// (AG/sandbox.rs find_container_process). One whose end has been waited for is not found any more.
func (s *Sandbox) process(id, exec string) (*container, *process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, nil, err
	}
	first := exec == ""
	if first {
		exec = id
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.processes[exec]
	switch {
	case p == nil && first:
		return nil, nil, ErrNoInit
	case p == nil:
		return nil, nil, ErrNoExec
	}
	return c, p, nil
}
