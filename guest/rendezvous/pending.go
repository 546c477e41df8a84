// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
)

// deathGrace is how long a launcher that is dead already may take to appear at the socket: its
// connection and its last message may still be in the queue.
const deathGrace = 100 * time.Millisecond

// Spec says what launch to expect.
type Spec struct {
	Token string     // from NewToken; also in the launcher's arguments
	Plan  *plan.Plan // not changed and not kept
	Exec  bool       // an exec session, not the container's init; for the text of errors
	// Helper is the executable that the launcher must run. The zero value admits any.
	Helper FileID
	// Failed, if set, is told why the launcher failed before that one is let go, which ends it: for a supervisor that ends
	// with the container's first process and has the reason to pass on. It must not wait for the Rendezvous.
	Failed func(*ExecError)
}

// FileID names a file, whatever its path and mount.
type FileID struct{ Dev, Ino uint64 }

// IdentifyFile returns the FileID of the file at path.
func IdentifyFile(path string) (FileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return FileID{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return FileID{Dev: uint64(st.Dev), Ino: st.Ino}, nil //nolint:unconvert // 32 bits wide elsewhere
}

// Pending is a launch that has been registered and has not been handed over or given up.
type Pending struct {
	r       *Rendezvous
	spec    Spec
	frame   []byte        // the plan as it is sent
	changed chan struct{} // holds one token after any change that Await cares for

	// The fields below are guarded by r.mu.
	ended      bool
	endErr     error // why, once ended
	pid        int   // as confirmed; 0 before
	process    *os.File
	diedAt     time.Time // when the confirmed process was seen dead
	candidates []*candidate
}

// candidate is a connection that has presented the launch's token.
type candidate struct {
	peer    *peer
	outcome *outcome // nil while it is being served
}

// Confirm tells the pid, in the caller's pid namespace, that the delegate gave the launcher. Only a
// launcher with this pid is ever handed over. It may be called before or after the launcher
// connects, from any goroutine, and once: another pid is an error.
func (p *Pending) Confirm(pid int) error {
	if pid <= 0 {
		return fmt.Errorf("confirm a launcher: %d is no pid", pid)
	}
	process, err := openProcess(pid)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("confirm a launcher: %w", err)
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return p.confirm(pid, process)
}

// confirm takes over process, which is nil if it is dead and reaped. The caller holds r.mu.
func (p *Pending) confirm(pid int, process *os.File) error {
	if p.ended || p.pid != 0 {
		if process != nil {
			process.Close()
		}
		if !p.ended && p.pid != pid {
			return fmt.Errorf("confirm a launcher: pid %d, but it was %d before", pid, p.pid)
		}
		return nil
	}
	p.pid = pid
	if process == nil {
		p.diedAt = time.Now() // its last message may still be on its way
	} else {
		p.process = process
		p.r.wg.Add(1)
		go p.watch(process)
	}
	p.candidates = slices.DeleteFunc(p.candidates, func(c *candidate) bool {
		if c.peer.pid == pid {
			return false
		}
		c.drop()
		return true
	})
	p.wake()
	return nil
}

// watch waits for the end of the process, or of the launch, which closes process.
func (p *Pending) watch(process *os.File) {
	defer p.r.wg.Done()
	if err := awaitExit(process); err != nil {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.ended {
		return
	}
	p.diedAt = time.Now()
	p.wake()
}

// Await blocks until the confirmed launcher's listener is there, and hands it over: the launcher
// then stands still under its filter until it is armed. Whatever Await returns, the launch is
// registered no more and its token is void.
//
// Errors: *ExecError with the reason that the launcher gave; ErrDied if it ended; ErrCanceled,
// ErrClosed; ctx's error, with how far the launch had come.
func (p *Pending) Await(ctx context.Context) (*Launch, error) {
	for {
		l, wait, err := p.poll()
		if l != nil || err != nil {
			return l, err
		}
		var grace <-chan time.Time
		if wait > 0 {
			grace = time.After(wait)
		}
		select {
		case <-p.changed:
		case <-grace:
		case <-ctx.Done():
			p.r.mu.Lock()
			defer p.r.mu.Unlock()
			err := fmt.Errorf("waiting for the launcher (%s): %w", p.progress(), context.Cause(ctx))
			p.end(err)
			return nil, err
		}
	}
}

// poll looks once whether the launch is decided. If it is not, wait says when to look again at the
// latest; 0 means when something changes.
func (p *Pending) poll() (l *Launch, wait time.Duration, err error) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.ended {
		return nil, 0, p.endErr
	}
	if p.pid == 0 {
		return nil, 0, nil
	}
	for _, c := range p.candidates { // all others were dropped by Confirm, or never admitted
		o := c.outcome
		if o == nil {
			continue
		}
		if o.err == nil && !c.peer.alive() {
			// The pid was another process's when it connected, or it has just been killed.
			o.close()
			o.err = ErrDied
		}
		if o.err != nil {
			p.end(o.err)
			return nil, 0, o.err
		}
		l := &Launch{PID: p.pid, Listener: o.listener, peer: c.peer, exec: p.spec.Exec}
		p.candidates = nil
		p.end(ErrCanceled)
		return l, 0, nil
	}
	if !p.diedAt.IsZero() {
		wait = deathGrace - time.Since(p.diedAt)
		if wait <= 0 {
			p.end(ErrDied)
			return nil, 0, ErrDied
		}
	}
	return nil, wait, nil
}

// settle records what came of serving s.
func (p *Pending) settle(s *peer, o outcome) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	i := slices.IndexFunc(p.candidates, func(c *candidate) bool { return c.peer == s })
	if i < 0 { // dropped meanwhile
		o.close()
		s.close()
		return
	}
	if _, told := errors.AsType[*ExecError](o.err); o.err != nil && !told && p.pid == 0 {
		// It left, or spoke nonsense. If it was the launcher, its death is seen once its pid is
		// known; as an impostor it shall take no candidate's place.
		p.candidates = slices.Delete(p.candidates, i, i+1)
		s.close()
		return
	}
	p.candidates[i].outcome = &o
	p.wake()
}

// Cancel gives the launch up: its token is void, its launcher sees the end of the connection and
// exits without running the workload. After Await has returned it does nothing.
func (p *Pending) Cancel() {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.end(ErrCanceled)
}

// end takes the launch out of the registry and drops its candidates. The caller holds r.mu.
func (p *Pending) end(err error) {
	if p.ended {
		return
	}
	p.ended, p.endErr = true, err
	p.r.pending = slices.DeleteFunc(p.r.pending, func(o *Pending) bool { return o == p })
	for _, c := range p.candidates {
		c.drop()
	}
	p.candidates = nil
	if p.process != nil {
		p.process.Close()
	}
	p.frame = nil
	p.wake()
}

// drop ends the connection of a candidate. If it is still being served, its goroutine closes the rest.
func (c *candidate) drop() {
	if c.outcome == nil {
		c.peer.conn.Close()
		return
	}
	c.outcome.close()
	c.peer.close()
}

func (p *Pending) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// progress says how far the launch has come. The caller holds r.mu.
func (p *Pending) progress() string {
	switch {
	case p.pid == 0 && len(p.candidates) == 0:
		return "its pid is not known and nothing has connected"
	case p.pid == 0:
		return "its pid is not known"
	case len(p.candidates) == 0:
		return fmt.Sprintf("process %d has not connected", p.pid)
	default:
		return fmt.Sprintf("process %d has its plan but has not handed its listener over", p.pid)
	}
}
