// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"errors"
	"fmt"

	"metsuke.dev/metsuke/guest/channel"
)

// maxControls bounds the Controls that the resident has not answered; more wait here.
const maxControls = 8

// Control has limits put in force and returns what the resident reads back: of the watched files, and of those whose last
// setting the kernel did not take. It fails if the resident was not launched, is gone, or does not answer within
// controlTimeout.
func (r *Resident) Control(ctx context.Context, settings []channel.Setting) ([]channel.Value, error) {
	values, err := r.control(ctx, channel.Control{Settings: settings})
	if err != nil {
		return nil, fmt.Errorf("limits inside the container: %w", err)
	}
	return values, nil
}

// CheckHelper has the resident look whether a process that the delegate adds to the container would find the helper. It
// fails if not, and as Control does.
func (r *Resident) CheckHelper(ctx context.Context) error {
	_, err := r.control(ctx, channel.Control{Helper: true})
	return err
}

// GiveUp ends a resident that does not do what it must: a loss, unless its container has ended.
func (r *Resident) GiveUp(why error) { r.end(why) }

// Gone says whether the resident has ended, or was given up.
func (r *Resident) Gone() bool {
	return isClosed(r.gone)
}

func (r *Resident) control(ctx context.Context, m channel.Control) ([]channel.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	select {
	case r.asking <- struct{}{}: // until the answer is there, if nobody waits for it any more
	case <-r.gone:
		return nil, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the resident has not answered the last %d requests: %w", maxControls, context.Cause(ctx))
	}
	r.mu.Lock()
	launching := r.launching != nil
	r.mu.Unlock()
	if launching {
		select {
		case <-r.ready:
		case <-r.gone:
		case <-ctx.Done():
		}
	}
	answer := make(chan channel.Report, 1)
	if err := r.ask(m, answer); err != nil {
		<-r.asking
		return nil, err
	}
	select {
	case report := <-answer:
		if report.Problem != "" {
			return nil, errors.New(report.Problem)
		}
		return report.Values, nil
	case <-r.gone:
		return nil, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
}

func (r *Resident) ask(m channel.Control, answer chan channel.Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.whyGone(); err != nil {
		return err
	}
	select {
	case <-r.ready:
	default:
		return errors.New("the resident is not ready")
	}
	m.ID = r.lastID + 1
	if err := channel.Check(m); err != nil {
		return err
	}
	r.lastID++
	r.controls[m.ID] = answer
	r.outbox.put(m)
	return nil
}

func (r *Resident) onReport(m channel.Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := r.controls[m.ID]
	if answer == nil {
		return fmt.Errorf("it answers request %d, which was not made", m.ID)
	}
	delete(r.controls, m.ID)
	<-r.asking
	answer <- m // has room for one
	return nil
}
