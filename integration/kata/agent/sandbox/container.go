// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/kata/agent/cgroup"
	"metsuke.dev/metsuke/integration/kata/agent/spec"
)

// container is one container. What is not marked is written before others can see it.
type container struct {
	id      string
	bundle  string
	group   cgroup.Group
	process *specs.Process // what execs inherit from

	mu        sync.Mutex
	state     state               // protected by mu
	processes map[string]*process // by the id of the exec, the first one by the container's; protected by mu
	oom       *cgroup.OOMWatch    // protected by mu
}

// state is what the agent holds of a container's life; it does not notice its end (RJ/container.rs ContainerStatus).
type state string

const (
	created state = "created"
	running state = "running"
	paused  state = "paused"
)

// The form of a container's id (src/libs/kata-sys-util/src/validate.rs).
var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CreateContainer makes a container whose first process waits to be started (AG/rpc.rs do_create_container). If it fails,
// nothing of the container is left.
func (s *Sandbox) CreateContainer(req *grpc.CreateContainerRequest) (err error) {
	id := req.ContainerId
	if !validID.MatchString(id) {
		return fmt.Errorf("invalid container ID: %q", id)
	}
	oci, err := spec.Convert(req.OCI)
	if err != nil {
		return err
	}
	if err := spec.Mounts(oci.Mounts); err != nil {
		return err
	}
	if err := s.mountStorages(req.Storages); err != nil {
		return err
	}

	s.making.Lock()
	defer s.making.Unlock()
	shared, err := s.sharedNamespaces(req.SandboxPidns)
	if err != nil {
		return err
	}
	spec.Namespaces(oci, shared)
	if err := applySysctls(spec.TakeNetworkSysctls(oci)); err != nil {
		return err
	}
	bundle, err := s.makeBundle(id)
	if err != nil {
		return err
	}
	c := &container{
		id: id, bundle: bundle, process: oci.Process, state: created, processes: map[string]*process{},
		group: cgroup.Group(filepath.Join(s.paths.Cgroups, filepath.Clean("/"+spec.CgroupPath(oci, id)))),
	}
	defer func() {
		if err != nil {
			if cleaning := s.destroy(c); cleaning != nil {
				log.Printf("container %s: failed to destroy: %v", id, cleaning)
			}
		}
	}()
	if err := s.mountRoot(id, bundle, oci); err != nil {
		return err
	}
	if err := truncateTargets(oci); err != nil {
		return err
	}
	p, err := s.runcCreate(c, oci)
	if err != nil {
		return err
	}
	c.processes[id] = p
	if err := pinNamespaces(filepath.Join(bundle, "ns"), p.pid); err != nil {
		return err
	}
	if err := c.group.Set(oci.Linux.Resources); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == "" && len(s.containers) == 0 {
		s.pid = fmt.Sprintf("/proc/%d/ns/pid", p.pid) // AG/sandbox.rs update_shared_pidns
	}
	s.containers[id] = c
	return nil
}

// sharedNamespaces are those that the next container joins. The sandbox's pid namespace is its first container's.
func (s *Sandbox) sharedNamespaces(pid bool) (spec.Shared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shared := spec.Shared{IPC: s.ipc, UTS: s.uts}
	if pid {
		if s.pid == "" && len(s.containers) > 0 {
			return shared, errors.New("Sandbox does not have sandbox_pidns")
		}
		shared.PID = s.pid
	}
	return shared, nil
}

// applySysctls puts settings of the network in force in the guest.
func applySysctls(settings map[string]string) error {
	for name, value := range settings {
		file := filepath.Join("/proc/sys", filepath.Clean("/"+strings.ReplaceAll(name, ".", "/")))
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
	}
	return nil
}

// StartContainer lets a container's first process run, and begins to watch for its memory's end, but for the sandbox's own
// container (AG/rpc.rs do_start_container).
func (s *Sandbox) StartContainer(id string) error {
	c, err := s.container(id)
	if err != nil {
		return err
	}
	if !s.Own(id) {
		if err := s.watchOOM(c); err != nil {
			return err
		}
	}
	if err := s.runc("start", id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = running
	return nil
}

// Own says whether a container is the sandbox's own, a pod's pause container: it has the sandbox's id.
func (s *Sandbox) Own(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id == id
}

func (s *Sandbox) watchOOM(c *container) error {
	watch, err := c.group.WatchOOM()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.oom = watch
	c.mu.Unlock()
	go func() {
		if watch.Wait() {
			select {
			case s.oom <- c.id:
			case <-s.destroyed:
			}
		}
	}()
	return nil
}

// Update changes a container's resources.
func (s *Sandbox) Update(id string, r *grpc.LinuxResources) error {
	c, err := s.container(id)
	if err != nil {
		return err
	}
	return c.group.Set(spec.Resources(r))
}

// Stats are a container's counters.
func (s *Sandbox) Stats(id string) (*grpc.CgroupStats, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	return c.group.Stats(), nil
}

// Pause freezes a container that is created or running (RJ/container.rs pause).
func (s *Sandbox) Pause(id string) error { return s.freeze(id, true, paused, created, running) }

// Resume thaws a paused container.
func (s *Sandbox) Resume(id string) error { return s.freeze(id, false, running, paused) }

func (s *Sandbox) freeze(id string, frozen bool, to state, from ...state) error {
	c, err := s.container(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range from {
		if c.state == f {
			if err := c.group.Freeze(frozen); err != nil {
				return err
			}
			c.state = to
			return nil
		}
	}
	return fmt.Errorf("cannot freeze or thaw a container: current status is: %s", c.state)
}

// Remove ends all processes of a container and removes it (AG/rpc.rs do_remove_container).
func (s *Sandbox) Remove(id string) error {
	s.making.Lock()
	defer s.making.Unlock()
	c, err := s.container(id)
	if err != nil {
		return err
	}
	if err := s.destroy(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
	return nil
}

// destroy takes back all that was made for a container, as far as it was made (RJ/container.rs destroy).
func (s *Sandbox) destroy(c *container) error {
	c.mu.Lock()
	if c.oom != nil {
		_ = c.oom.Close() // it may have been closed before
	}
	var left []*process
	for _, p := range c.processes {
		left = append(left, p)
	}
	c.mu.Unlock()
	for _, p := range left {
		p.kill()
	}
	// With the sandbox's pid namespace the end of the first process ends no other.
	if pids, err := c.group.PIDs(); err == nil {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
		}
	}
	for _, p := range left {
		<-p.exited
		p.close()
	}
	err := s.runc("delete", "--force", c.id)
	return errors.Join(err, c.group.Remove(), unpinNamespaces(filepath.Join(c.bundle, "ns")), s.unmountRoot(c.id, c.bundle), removeBundle(c.bundle))
}

// removeBundle removes a bundle but nothing that is mounted in it.
func removeBundle(bundle string) error {
	for _, name := range []string{"config.json", "pid", "rootfs", ""} {
		if err := os.Remove(filepath.Join(bundle, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a bundle: %w", err)
		}
	}
	return nil
}
