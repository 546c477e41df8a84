// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"sync"

	"github.com/containerd/ttrpc"
	hypervisor "github.com/kata-containers/kata-containers/src/runtime/protocols/hypervisor"
	"golang.org/x/sys/unix"
)

// Annotations of a CreateVM request: what the shim's remote driver says of a machine (virtcontainers/remote.go). Kata's
// configuration has no defaults for this driver: the numbers are those of the sandbox's own annotations, if Kata's
// configuration enables them, plus the pod's limits; without either 1 and 2048. The type is a cloud's name of a kind of
// machine. Here it is words with commas, the policy of the stand-in agent, so that a pod can ask for an agent that refuses.
const (
	annotationVCPUs  = "io.katacontainers.config.hypervisor.default_vcpus"
	annotationMemory = "io.katacontainers.config.hypervisor.default_memory" // MiB
	annotationType   = "io.katacontainers.config.hypervisor.machine_type"
)

// policies are what a type may be.
var policies = regexp.MustCompile(`^[a-z,-]*$`)

// daemon holds the machines. Its methods are safe for concurrent use.
type daemon struct {
	options options
	spawn   chan func()   // runs functions on the thread that makes all children
	boots   chan struct{} // a machine that boots takes a place

	mu       sync.Mutex
	machines map[string]*machine
	stopping bool
}

func newDaemon(o options) *daemon {
	d := &daemon{
		options: o, machines: map[string]*machine{}, spawn: make(chan func()),
		// More at once would only wait for each other's emulation.
		boots: make(chan struct{}, runtime.NumCPU()),
	}
	go func() {
		// A child's Pdeathsig comes when the thread that made it ends, so that must be one that never does.
		runtime.LockOSThread()
		for f := range d.spawn {
			f()
		}
	}()
	return d
}

// serve serves shims until the listener is closed.
func (d *daemon) serve(ctx context.Context, listener *net.UnixListener) error {
	for {
		conn, err := listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		if err := d.serveShim(ctx, conn); err != nil {
			log.Printf("refuse a connection: %v", err)
			_ = conn.Close()
		}
	}
}

// serveShim serves one connection by a ttrpc server of its own, because a method does not learn from which it was called.
func (d *daemon) serveShim(ctx context.Context, conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr != nil {
		return peerErr
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	hypervisor.RegisterHypervisorService(server, &service{daemon: d, shim: int(peer.Pid)})
	if err := server.Serve(ctx, &single{conn: conn}); !errors.Is(err, io.EOF) {
		return err
	}
	return nil // the connection lives on
}

// single is a listener that accepts one connection.
type single struct {
	net.Listener
	conn net.Conn
}

func (s *single) Accept() (net.Conn, error) {
	conn := s.conn
	s.conn = nil
	if conn == nil {
		return nil, io.EOF
	}
	return conn, nil
}

func (s *single) Close() error { return nil }

// service is what one shim sees.
type service struct {
	daemon *daemon
	shim   int // its pid
}

func (s *service) Version(context.Context, *hypervisor.VersionRequest) (*hypervisor.VersionResponse, error) {
	return &hypervisor.VersionResponse{Version: "metsuke-vmm"}, nil
}

func (s *service) CreateVM(_ context.Context, r *hypervisor.CreateVMRequest) (*hypervisor.CreateVMResponse, error) {
	m, err := s.daemon.create(r, s.shim)
	if err != nil {
		return nil, err
	}
	return &hypervisor.CreateVMResponse{AgentSocketPath: m.path("agent")}, nil
}

func (s *service) StartVM(ctx context.Context, r *hypervisor.StartVMRequest) (*hypervisor.StartVMResponse, error) {
	m := s.daemon.find(r.GetId())
	if m == nil {
		return nil, fmt.Errorf("there is no machine %q", r.GetId())
	}
	return &hypervisor.StartVMResponse{}, m.start(ctx)
}

// StopVM of a machine that is gone is no error: the shim stops a machine more than once.
func (s *service) StopVM(_ context.Context, r *hypervisor.StopVMRequest) (*hypervisor.StopVMResponse, error) {
	m := s.daemon.find(r.GetId())
	if m == nil {
		return &hypervisor.StopVMResponse{}, nil
	}
	return &hypervisor.StopVMResponse{}, m.stop()
}

func (d *daemon) find(id string) *machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.machines[id]
}

func (d *daemon) create(r *hypervisor.CreateVMRequest, shim int) (*machine, error) {
	id, annotations := r.GetId(), r.GetAnnotations()
	asked := request{policy: annotations[annotationType], namespace: r.GetNetworkNamespacePath()}
	if !policies.MatchString(asked.policy) {
		return nil, fmt.Errorf("%s: there is no type %q", annotationType, asked.policy)
	}
	for annotation, number := range map[string]*int{annotationVCPUs: &asked.vcpus, annotationMemory: &asked.memory} {
		var err error
		if *number, err = strconv.Atoi(annotations[annotation]); err != nil {
			return nil, fmt.Errorf("%s: %w", annotation, err)
		}
	}
	m, err := d.add(id, asked, shim)
	if err != nil {
		return nil, err
	}
	// A shim that was killed leaves its machine to its `delete`, which fails with remote machines: what it reads back from disk
	// does not name the daemon's socket (virtcontainers/persist.go of Kata 3.20).
	pidfd, err := unix.PidfdOpen(shim, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch the shim: %w", err), m.stop())
	}
	go m.endWith(pidfd)
	log.Printf("machine %.12s of shim %d: asked for %+v, gets %d vCPU and %d MiB", id, shim, asked, m.asked.vcpus, m.asked.memory)
	return m, nil
}

func (d *daemon) add(id string, asked request, shim int) (*machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return nil, errors.New("the daemon is stopping")
	}
	if d.machines[id] != nil {
		return nil, fmt.Errorf("there is a machine %q already", id)
	}
	m, err := newMachine(d, id, asked, shim)
	if err != nil {
		return nil, err
	}
	d.machines[id] = m
	return m, nil
}

func (d *daemon) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.machines, id)
}

// stopAll stops every machine; no new one is made from now on.
func (d *daemon) stopAll() {
	d.mu.Lock()
	d.stopping = true
	var left []*machine
	for _, m := range d.machines {
		left = append(left, m)
	}
	d.mu.Unlock()
	for _, m := range left {
		if err := m.stop(); err != nil {
			log.Printf("stop machine %.12s: %v", m.id, err)
		}
	}
}
