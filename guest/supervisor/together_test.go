// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
)

// slowDisk is a sink whose events are kept when a disk has them.
type slowDisk struct {
	*recorder
	written uint64
	durable uint64
	waits   int              // how often the disk was waited for
	wait    func(n int)      // called with the number of the wait
	fail    func(n int) bool // whether what was waited for is lost
	cuts    uint64
}

func (d *slowDisk) Put(ev *audit.Event, n uint64) (audit.Ticket, error) {
	err := d.AppendFolded(ev, n)
	d.written++
	return audit.Ticket{Number: d.written, Cuts: d.cuts}, err
}

func (d *slowDisk) Commit(t audit.Ticket) error {
	if t.Cuts < d.cuts {
		return errSink
	}
	if t.Number <= d.durable {
		return nil
	}
	d.waits++
	d.wait(d.waits)
	if !d.fail(d.waits) {
		d.durable = d.written
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = d.events[:len(d.events)-int(d.written-d.durable)]
	d.cuts, d.durable = d.cuts+1, d.written
	return errSink
}

// inOpenat returns how many children of a process are in the call.
func inOpenat(pid int) (n int) {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	for _, child := range strings.Fields(string(children)) {
		if call, _ := os.ReadFile("/proc/" + child + "/syscall"); strings.HasPrefix(string(call), fmt.Sprint(unix.SYS_OPENAT, " ")) {
			n++
		}
	}
	return n
}

// TestCallsWaitTogether: calls that are there at the same time cost one wait for the disk, or two, if the first came before the others. What
// is lost in a wait is recorded once more, each once.
func TestCallsWaitTogether(t *testing.T) {
	const calls = 12
	for name, fails := range map[string]bool{"kept": false, "lost once": true} {
		t.Run(name, func(t *testing.T) {
			r := rules{unix.SYS_OPENAT: audited("file-read")}
			pid := make(chan int, 1)
			disk := &slowDisk{
				recorder: &recorder{}, fail: func(n int) bool { return fails && n == 2 },
				wait: func(n int) {
					if n > 1 {
						return
					}
					victim := <-pid
					for inOpenat(victim) < calls { // the others are in the kernel's queue
						time.Sleep(time.Millisecond)
					}
				},
			}
			s := newStand(t, Options{Program: r, Sink: disk, Synced: disk, StallTimeout: time.Minute})
			p, session := s.run(t, r, "", "crowd", fmt.Sprint(calls), "/etc/passwd")
			pid <- p.PID()
			if out := finish(t, p, session); out != fmt.Sprintf("ok=%d\n", calls) {
				t.Errorf("victim: %q", out)
			}
			if n := len(disk.calls("openat")); n != calls {
				t.Errorf("%d events, want %d", n, calls)
			}
			if disk.waits > 2 {
				t.Errorf("%d waits for %d calls, want 2", disk.waits, calls)
			}
			if st := s.Stats(); st.Lost != 0 || st.Audited != calls+1 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}
