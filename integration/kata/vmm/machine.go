// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	minMemory = 256            // MiB: the kernel, the first file system and the agent; Kata's remote driver adds nothing for them
	attempts  = 2              // at a boot
	bootLine  = "agent: ready" // what the agent says on the console when it serves
)

// machine is one virtual machine: a virtiofsd and a QEMU, and their directory.
type machine struct {
	daemon *daemon
	id     string
	asked  request
	shim   int // pid, whose mount namespace has what is shared

	ctx    context.Context // ends with stop, which so interrupts start
	cancel context.CancelFunc

	// stop ends the machine and removes its directory; only the console's log stays.
	stop func() error

	mu        sync.Mutex // held by start and stop while they work
	network   *network   // nil if the guest has none
	virtiofsd *process
	qemu      *process
}

// request is what a shim asks for.
type request struct {
	vcpus, memory int    // memory in MiB
	policy        string // of the agent: words with commas
	namespace     string // the pod's network namespace, a path; "" if it has none of its own
}

func newMachine(d *daemon, id string, asked request, shim int) (*machine, error) {
	if id == "" || id != filepath.Base(id) {
		return nil, fmt.Errorf("%q cannot be a machine's ID", id)
	}
	asked.vcpus, asked.memory = max(asked.vcpus, 1), max(asked.memory, minMemory)
	ctx, cancel := context.WithCancel(context.Background())
	m := &machine{daemon: d, id: id, asked: asked, shim: shim, ctx: ctx, cancel: cancel}
	m.stop = sync.OnceValue(m.remove)
	if err := os.Mkdir(m.path(""), 0o700); err != nil {
		cancel()
		return nil, err
	}
	return m, nil
}

// path is a place in the machine's directory.
func (m *machine) path(name string) string { return filepath.Join(m.daemon.options.dir, m.id, name) }

// start returns when the agent runs in the machine.
func (m *machine) start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.qemu != nil || m.ctx.Err() != nil {
		return errors.New("started or stopped already")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	select {
	case m.daemon.boots <- struct{}{}:
		defer func() { <-m.daemon.boots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	network, err := openNetwork(m.asked.namespace)
	if err != nil {
		return err
	}
	m.network = network
	begin := time.Now()
	for attempt := 1; ; attempt++ {
		err := m.boot(ctx)
		if err == nil {
			log.Printf("machine %.12s: booted in %.1f s", m.id, time.Since(begin).Seconds())
			return nil
		}
		m.halt()
		if attempt == attempts || ctx.Err() != nil {
			return fmt.Errorf("boot: %w; its console is %s", err, m.consolePath())
		}
		log.Printf("machine %.12s: boot again: %v", m.id, err)
	}
}

func (m *machine) consolePath() string {
	return filepath.Join(m.daemon.options.logs, m.id+".console")
}

// boot starts virtiofsd and QEMU, and waits for the agent.
func (m *machine) boot(ctx context.Context) error {
	patience := m.daemon.options.patience
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the agent did not start within %v", patience))
	defer cancel()
	shared, err := listen(m.path("fs"))
	if err != nil {
		return err
	}
	defer func() { _ = shared.Close() }()
	command, err := m.virtiofsdCommand()
	if err != nil {
		return err
	}
	if m.virtiofsd, err = m.daemon.run(command, m.consolePath(), "", shared); err != nil {
		return err
	}
	if m.qemu, err = m.daemon.run(m.qemuCommand(), m.consolePath(), bootLine, m.network.files()...); err != nil {
		return err
	}
	select {
	case <-m.qemu.said:
		return nil
	case <-m.qemu.ended:
		return fmt.Errorf("QEMU: %w", m.qemu.err)
	case <-m.virtiofsd.ended:
		return fmt.Errorf("virtiofsd: %w", m.virtiofsd.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// listen makes a listening socket for a child. QEMU may connect before the child accepts.
func listen(path string) (*os.File, error) {
	// One that a boot before this made is of no more use.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	return file, errors.Join(err, listener.Close())
}

// halt ends the machine's processes.
func (m *machine) halt() {
	for _, p := range []*process{m.qemu, m.virtiofsd} {
		if p != nil {
			p.kill()
		}
	}
	m.qemu, m.virtiofsd = nil, nil
}

// remove is stop, which does it once.
func (m *machine) remove() error {
	m.cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halt()
	m.daemon.forget(m.id)
	return errors.Join(m.network.close(), os.RemoveAll(m.path("")))
}

// endWith stops the machine when a process has ended, of which it gets the pidfd.
func (m *machine) endWith(pidfd int) {
	defer func() { _ = unix.Close(pidfd) }()
	for {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err := m.stop(); err != nil {
		log.Printf("machine %.12s: stop: %v", m.id, err)
	}
}
