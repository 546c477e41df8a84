// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/shim/delegate"
)

const (
	// dyingPatience is how long start and delete wait for a daemon whose delegate is dead to go.
	dyingPatience = 3 * time.Second
	// joinPatience is how long start waits for the daemon of a delegate that runs already: the start that made the
	// delegate may still be under way.
	joinPatience = 10 * time.Second
	// readyPatience is how long start waits for its daemon.
	readyPatience = 30 * time.Second
)

// starter is one start action, and what it has to undo if it fails.
type starter struct {
	inv      *invocation
	settings Settings
	config   string
	dir      string   // the pod's directory, if this start makes the pod
	lock     *os.File // nil when the pod's daemon runs already
	events   *net.UnixListener
}

// start runs the delegate's start, makes the pod's daemon if the delegate is new, and returns the answer.
func (p Program) start(ctx context.Context, inv *invocation) (_ []byte, err error) {
	config, err := delegate.UnwrapOptions(inv.options)
	if err != nil {
		return nil, err
	}
	settings, err := p.Configure(config)
	if err != nil {
		return nil, err
	}
	s := &starter{inv: inv, settings: settings, config: config, dir: podDir(settings.StateDir, inv)}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.abandon())
		}
	}()
	d, err := delegate.Start(ctx, settings.Delegate, s.params())
	if err != nil {
		return nil, err
	}
	address, err := ownAddress(d.Address)
	if err != nil {
		return nil, errors.Join(err, endNew(ctx, d))
	}
	version := advertised(inv, d.Version)
	// The daemon comes last: once it is there, nothing can fail any more.
	out, err := answer(d.Result, address, version, inv.bootstrap != nil)
	if err == nil {
		err = writeAddress(inv.bundle, address, inv.bootstrap != nil)
	}
	if err == nil && d.New {
		err = s.lead(ctx, d, address, version < d.Version)
	} else if err == nil {
		err = s.join(ctx, address)
	}
	if err != nil {
		return nil, errors.Join(err, endNew(ctx, d))
	}
	return out, nil
}

// endNew ends a delegate that this start made and cannot use.
func endNew(ctx context.Context, d *delegate.Started) error {
	if !d.New {
		return nil
	}
	return d.End(ctx)
}

// prepare takes the pod's directory and puts the socket there that the delegate, if it is new, sends its events to.
func (s *starter) prepare(ctx context.Context) error {
	lock, err := claim(s.dir)
	if errors.Is(err, errHeld) {
		if st, serr := ReadState(s.dir); serr == nil && st.Delegate.Process.Alive() {
			return nil // the container's own pod runs; the delegate will say what to do
		}
		// A daemon or a delete that is about to end.
		if l, rerr := released(ctx, s.dir, dyingPatience); rerr == nil {
			l.Close()
		}
		lock, err = claim(s.dir)
	}
	if err != nil {
		return fmt.Errorf("pod directory %s: %w", s.dir, err)
	}
	s.lock = lock
	if err := s.clear(ctx); err != nil {
		return errors.Join(err, s.abandon())
	}
	if s.events, err = listen(filepath.Join(s.dir, eventsSocket)); err != nil {
		return errors.Join(err, s.abandon())
	}
	return nil
}

// clear removes what an earlier pod of the same container has left in the directory whose lock we hold.
func (s *starter) clear(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("pod directory: %w", err)
	}
	if len(entries) <= 1 {
		return nil // the lock
	}
	if st, err := ReadState(s.dir); err == nil {
		if err := errors.Join(st.Delegate.End(ctx), removeSocket(st.Address)); err != nil {
			return fmt.Errorf("leftovers in %s: %w", s.dir, err)
		}
	}
	if err := unmountUnder(s.dir); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("leftovers in %s: %w", s.dir, err)
		}
	}
	return nil
}

// abandon removes what prepare made. A pod that runs is not touched.
func (s *starter) abandon() error {
	if s.lock == nil {
		return nil
	}
	if s.events != nil {
		s.events.Close()
	}
	err := removePodDir(s.dir)
	s.lock.Close() // after the directory is gone: who waits for the lock sees that
	s.lock = nil
	return err
}

func (s *starter) params() delegate.Params {
	return delegate.Params{
		Namespace: s.inv.namespace, ID: s.inv.id, Bundle: s.inv.bundle, Address: s.inv.address,
		PublishBinary: s.inv.publishBinary, Debug: s.inv.debug, Bootstrap: s.inv.bootstrap,
		TTRPCAddress: filepath.Join(s.dir, eventsSocket),
	}
}

// lead makes the daemon of a new delegate.
func (s *starter) lead(ctx context.Context, d *delegate.Started, address string, taskV2 bool) error {
	if s.lock == nil {
		return fmt.Errorf("the delegate of %s is new, but its pod's shim still runs: try again", s.inv.id)
	}
	st := State{
		Version: stateVersion, Namespace: s.inv.namespace, ID: s.inv.id, Bundle: s.inv.bundle, Dir: s.dir,
		Address: address, Containerd: s.inv.address, TTRPC: s.inv.ttrpcAddress, PublishBinary: s.inv.publishBinary,
		Debug: s.inv.debug, Config: s.config, TaskV2: taskV2, Delegate: d.Instance,
	}
	if err := writeJSON(filepath.Join(s.dir, stateFile), &st); err != nil {
		return err
	}
	if err := writeRecord(s.inv.bundle, &Record{State: st, Container: s.inv.id}); err != nil {
		return err
	}
	path, err := delegate.SocketPath(address)
	if err != nil {
		return err
	}
	// Nobody else can have made this delegate, so a socket of that name is what a dead daemon left.
	if err := removeSocket(address); err != nil {
		return err
	}
	task, err := listen(path)
	if err != nil {
		return err
	}
	defer task.Close()
	if err := spawn(ctx, &st, task, s.events, s.lock); err != nil {
		return errors.Join(err, removeSocket(address))
	}
	return nil
}

// join finds the daemon of a delegate that runs already.
func (s *starter) join(ctx context.Context, address string) error {
	if err := s.abandon(); err != nil {
		return err
	}
	path, err := delegate.SocketPath(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.Close()
		}
		// Its containers run unwatched until containerd's delete; another must not join them.
		orphan := fmt.Errorf("the pod's delegate runs, but its Metsuke shim does not (%w): delete the pod", err)
		if s.orphaned(address) {
			return orphan
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", orphan, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// orphaned says that the delegate behind an address of ours lives and its daemon is dead. It is false while a start is
// still on its way to make the daemon.
func (s *starter) orphaned(address string) bool {
	st := stateByAddress(s.settings.StateDir, address)
	if !st.Delegate.Process.Alive() {
		return false
	}
	lock, err := inspect(st.Dir)
	if err != nil {
		return false
	}
	lock.Close()
	return true
}

// listen makes a socket for our own user alone, as containerd's shims do.
func listen(path string) (*net.UnixListener, error) {
	if len(path) > 107 { // sockaddr_un(7)
		return nil, fmt.Errorf("socket path %s is longer than 107 bytes: choose a shorter state directory", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	old := unix.Umask(0o177) // there is no moment in which others could connect
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l.SetUnlinkOnClose(false) // the daemon has it too
	return l, nil
}
