// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"metsuke.dev/metsuke/guest/channel"
)

// What is not an event costs the resident no credit, so its rate is bounded: burst frames at once, then one each
// interval. More than that waits in the pipe.
const (
	burst    = 1024
	interval = 2 * time.Millisecond
)

// receive takes what the resident sends until its output ends or it breaks a rule.
func (r *Resident) receive() {
	out, err := r.pipes.openOutput()
	if err != nil {
		err = fmt.Errorf("open the resident's output: %w", err)
	} else {
		err = r.listen(channel.NewReceiver(out, r.cfg.Start.Secret, channel.GuestToHost))
	}
	r.end(err)
	if out != nil {
		// The delegate may say that the exec session ended only when its output has been read.
		_, _ = io.Copy(io.Discard, out)
	}
}

// listen returns why nothing more is taken from the resident; errEnded is wrapped by what is not its fault.
func (r *Resident) listen(in *channel.Receiver) error {
	var pace pace
	for {
		m, err := in.Receive()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, channel.ErrTruncated), errors.Is(err, os.ErrDeadlineExceeded):
			return errEnded
		case err != nil:
			return fmt.Errorf("from the resident: %w", err)
		}
		if event, ok := m.(channel.Event); ok {
			err = r.onEvent(event)
		} else {
			pace.wait()
			err = r.on(m)
		}
		if err != nil {
			return err
		}
	}
}

// on takes a message that is not an event.
func (r *Resident) on(m channel.Message) error {
	var err error
	switch m := m.(type) {
	case channel.Fatal:
		return fmt.Errorf("the resident gave up: %s", m.Text)
	case channel.Ready:
		err = r.onReady(m)
	case channel.Found:
		err = r.onFound(m)
	case channel.Armed:
		err = r.onArmed(m)
	case channel.Failed:
		err = r.onFailed(m)
	case channel.Report:
		err = r.onReport(m)
	case channel.Fold:
		if r.isReady() {
			r.inbox.fold(m.N)
		} else {
			err = errNotReady
		}
	case channel.KillInit:
		if r.isReady() {
			r.initOnce.Do(func() { go r.cfg.OnKillInit() })
		} else {
			err = errNotReady
		}
	}
	return broke(err)
}

var errNotReady = errors.New("it says so before it is ready")

// broke words a violation of the protocol.
func broke(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the resident broke the rules: %w", err)
}

// onReady tells the resident what was expected before.
func (r *Resident) onReady(m channel.Ready) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isReady() {
		return errors.New("it is ready twice")
	}
	if m.Tasks > channel.ResidentTasks {
		return fmt.Errorf("it has %d tasks, at most %d are allowed", m.Tasks, channel.ResidentTasks)
	}
	r.hello = m
	for _, id := range slices.Sorted(maps.Keys(r.launches)) {
		r.outbox.put(r.launches[id].frame)
	}
	close(r.ready)
	return nil
}

// pace spreads what comes too fast.
type pace struct{ next time.Time }

func (p *pace) wait() {
	now := time.Now()
	if earliest := now.Add(-burst * interval); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(interval)
	time.Sleep(p.next.Sub(now))
}
