// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
)

// Pending is a launch that is expected.
type Pending struct {
	r     *Resident
	frame channel.Expect

	standing chan struct{} // closed when found is there
	found    channel.Found
	done     chan struct{} // closed when the launch is over, for the caller; err says how
	err      error         // nil: it is the workload

	// The fields below are guarded by r.mu.
	stands, arming, finished bool
}

// Expect registers a launch, whose launcher presents the token and gets the plan, which is not kept. It may be called
// before Launch. The caller ends it by Await or Cancel.
func (r *Resident) Expect(exec, token string, p *plan.Plan) (*Pending, error) {
	frame, err := p.Append(nil)
	if err != nil {
		return nil, fmt.Errorf("expect a launcher: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.whyGone(); err != nil {
		return nil, fmt.Errorf("expect a launcher: %w", err)
	}
	if len(r.launches) >= channel.MaxSessions {
		return nil, fmt.Errorf("expect a launcher: %d are under way already", len(r.launches))
	}
	l := &Pending{
		r: r, frame: channel.Expect{ID: r.lastID + 1, Exec: exec, Token: token, Plan: frame},
		standing: make(chan struct{}), done: make(chan struct{}),
	}
	if err := channel.Check(l.frame); err != nil {
		return nil, fmt.Errorf("expect a launcher: %w", err)
	}
	r.lastID++
	r.launches[r.lastID] = l
	if r.isReady() {
		r.outbox.put(l.frame)
	}
	return l, nil
}

func (r *Resident) isReady() bool { return isClosed(r.ready) }

// Found is a launcher that stands still under its filter, one step before the workload, as the resident saw it.
type Found struct {
	channel.Found
	p *Pending
}

// Await blocks until the launcher stands under its filter. Whatever it returns, its token is void.
//
// Errors: *rendezvous.ExecError with the reason that the launcher gave; what the resident says; why there is none;
// rendezvous.ErrCanceled; ctx's.
func (p *Pending) Await(ctx context.Context) (*Found, error) {
	select {
	case <-p.standing:
	case <-p.done:
	case <-ctx.Done():
		p.Cancel()
		if p.r.isReady() {
			return nil, fmt.Errorf("waiting for the launcher (it has not handed its listener over): %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("waiting for the launcher (the resident is not ready): %w", context.Cause(ctx))
	}
	select {
	case <-p.done:
		return nil, p.err
	default:
		return &Found{Found: p.found, p: p}, nil
	}
}

// Cancel gives the launch up unless it is being armed: its launcher exits without running the workload.
func (p *Pending) Cancel() {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.finished || p.arming {
		return
	}
	p.finish(rendezvous.ErrCanceled)
	if p.r.isReady() {
		p.r.outbox.put(channel.Cancel{ID: p.frame.ID}) // and stays until the resident has ended it
	} else {
		delete(p.r.launches, p.frame.ID)
	}
}

// Arm lets the launcher become the workload, and waits until it has. Errors are those of Await; after one the caller
// kills the process, which may have become the workload if the resident or ctx ended.
func (f *Found) Arm(ctx context.Context) error {
	if err := f.p.arm(); err != nil {
		return err
	}
	select {
	case <-f.p.done:
		return f.p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for process %d to become the workload: %w", f.PID, context.Cause(ctx))
	}
}

func (p *Pending) arm() error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	switch {
	case p.finished:
		return p.err
	case p.arming:
		return errors.New("arm a launcher: it was armed before")
	}
	p.arming, p.r.armed = true, true
	p.r.outbox.put(channel.Arm{ID: p.frame.ID})
	return nil
}

// Close gives a launcher up that is not armed.
func (f *Found) Close() { f.p.Cancel() }

// finish decides the launch for the caller. The caller holds r.mu.
func (p *Pending) finish(err error) {
	if p.finished {
		return
	}
	p.finished, p.err = true, err
	close(p.done)
}

// named returns the launch that a message of the resident names. The caller holds r.mu.
func (r *Resident) named(id uint64) (*Pending, error) {
	p := r.launches[id]
	if p == nil || !r.isReady() {
		return nil, fmt.Errorf("it names launch %d, which is not under way", id)
	}
	return p, nil
}

// onFound, onArmed and onFailed take what the resident says of a launch; an error means that it breaks the rules.
func (r *Resident) onFound(m channel.Found) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.named(m.ID)
	if err != nil {
		return err
	}
	if p.stands {
		return fmt.Errorf("it found launch %d twice", m.ID)
	}
	p.stands, p.found = true, m
	close(p.standing)
	return nil
}

func (r *Resident) onArmed(m channel.Armed) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.named(m.ID)
	if err != nil {
		return err
	}
	if !p.arming {
		return fmt.Errorf("it armed launch %d on its own", m.ID)
	}
	p.finish(nil)
	delete(r.launches, m.ID)
	return nil
}

func (r *Resident) onFailed(m channel.Failed) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.named(m.ID)
	if err != nil {
		return err
	}
	if m.Stage > uint8(plan.StageExec) || m.Errno > maxErrno {
		return fmt.Errorf("launch %d failed at stage %d with errno %d, which there are not", m.ID, m.Stage, m.Errno)
	}
	if m.Stage == 0 {
		p.finish(fmt.Errorf("the resident says: %s", m.Text))
	} else {
		p.finish(&rendezvous.ExecError{
			Stage: plan.Stage(m.Stage), Errno: syscall.Errno(m.Errno), Arg: m.Arg, Exec: p.frame.Exec != "",
		})
	}
	delete(r.launches, m.ID)
	return nil
}

// maxErrno is the kernel's MAX_ERRNO (<linux/err.h>).
const maxErrno = 4095
