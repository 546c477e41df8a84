// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"errors"
	"fmt"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
)

// Exited is told how the hidden exec session ended, when the delegate says so.
func (r *Resident) Exited(status uint32) {
	r.mu.Lock()
	select {
	case <-r.exited:
	default:
		r.status = status
		close(r.exited)
	}
	r.mu.Unlock()
	r.pipes.finish(exitedGrace)
}

// end is told, once, that nothing more comes from the resident. Whatever waits for it fails with err.
func (r *Resident) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gone:
		return
	default:
	}
	r.err = err
	close(r.gone)
	for id, p := range r.launches {
		if p.arming && p.frame.Exec == "" && errors.Is(err, errEnded) {
			// A workload as short as can be takes the resident along before that can say that it runs. A launcher that fails
			// waits until that has been said. If it was something else, it is the container's end, or a loss.
			p.finish(nil)
		}
		p.finish(err)
		delete(r.launches, id)
	}
	r.outbox.close()
	r.inbox.close()
	r.pipes.hangUp()
	if r.launching != nil {
		r.wg.Go(r.judge)
	}
}

// judge decides whether the resident's end is a loss, and does what then has to be done at once.
func (r *Resident) judge() {
	defer close(r.judged)
	ended := errors.Is(r.err, errEnded)
	if ended {
		select {
		case <-r.over:
			return
		case <-r.abort:
			return
		case <-time.After(r.grace):
		}
		// Kata tells the end of a container that is no pod's when it has ended the VM, and answers nothing meanwhile.
		if r.exec.containerEnded() {
			return
		}
		select {
		case <-r.over: // meanwhile
			return
		default:
		}
	}
	if !ended {
		// What broke a rule may still run. It is killed when the container's end has been asked for: a guest can hold this up.
		defer r.exec.kill()
	}
	r.mu.Lock()
	armed := r.armed
	r.mu.Unlock()
	if !armed {
		return // no workload has run
	}
	r.death = r.err
	select {
	case <-r.over:
	default:
		r.keeper.tell(audit.Loss{Reason: audit.LossSupervisor, OnLoss: r.keeper.onLoss(), Detail: r.err.Error()})
	}
}

// Ended is told that the container's first process has ended, so that the resident's end is normal from now on. It
// returns when all events are in the stream, or with ctx's error.
func (r *Resident) Ended(ctx context.Context) error {
	r.overOnce.Do(func() {
		close(r.over)
		if r.isReady() {
			r.outbox.put(channel.Stop{})
		}
	})
	r.mu.Lock()
	launching := r.launching
	r.mu.Unlock()
	if launching == nil {
		return nil
	}
	select {
	case <-r.kept:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the last events of container %s are not in its stream: %w", r.cfg.Container, context.Cause(ctx))
	}
}
