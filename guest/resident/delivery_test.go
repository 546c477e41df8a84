// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/channel"
)

// TestCreditRunsOut has a host whose disk takes nothing: audited calls wait, denials do not, and nothing is lost.
func TestCreditRunsOut(t *testing.T) {
	for name, ordered := range bothDeliveries {
		t.Run(name, func(t *testing.T) {
			h := stand(t, options{ordered: ordered})
			other := h.exec("other", 0, "workload")
			h.acknowledge(false)
			const calls = 3000 // their records are more than the credit
			h.c.init.post(t, "opens %d /etc/passwd", calls)
			if ordered {
				h.await("the first event", func() bool { return h.open > 0 })
			} else {
				h.await("the credit is used up", func() bool { return h.open > channel.MaxRecord-2000 })
			}
			// Denials never wait: those that do not fit are counted.
			if got := other.ask(t, "deny 100"); got != "100 13" {
				t.Errorf("deny: %q", got)
			}
			h.await("denials are counted", func() bool { return h.folded > 0 })
			h.mu.Lock()
			sent := len(h.events)
			h.mu.Unlock()
			if sent > calls {
				t.Errorf("%d events were sent", sent)
			}
			h.acknowledge(true)
			if got := h.c.init.answer(t); got != fmt.Sprintf("%d 0", calls) {
				t.Errorf("opens: %q", got)
			}
			other.stdin.Close()
			other.wait(t)
			h.await("all denials have records", func() bool { return h.folded == 0 && len(h.events) > calls })
			if got := h.calls("openat", "/etc/passwd"); got != calls {
				t.Errorf("%d events of openat, want %d", got, calls)
			}
			if got := h.calls("getppid", ""); got != 100 {
				t.Errorf("%d denials in records, want 100", got)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.most > channel.MaxRecord {
				t.Errorf("%d bytes were unacknowledged, more than the credit of %d", h.most, channel.MaxRecord)
			}
			if ordered && h.most > 32*8192 {
				t.Errorf("%d bytes were unacknowledged: an ordered call did not wait for its own", h.most)
			}
		})
	}
}

// TestSessionsWaitForThemselves: what waits for an acknowledgement is one session, and the next one is served.
func TestSessionsWaitForThemselves(t *testing.T) {
	h := stand(t, options{ordered: true})
	other := h.exec("other", 0, "workload")
	h.acknowledge(false)
	h.c.init.post(t, "opens 1 /first")
	h.await("the first call's event", func() bool { return h.open > 0 })
	other.post(t, "opens 1 /second")
	h.await("the second call's event", func() bool { return len(h.events) == 4 })
	// The first alone is acknowledged.
	h.mu.Lock()
	seq := h.seq - 1
	h.mu.Unlock()
	h.send(channel.Ack{Seq: seq})
	if got := h.c.init.answer(t); got != fmt.Sprintf("0 %d", unix.ENOENT) {
		t.Errorf("the first: %q", got)
	}
	answered := make(chan string, 1)
	go func() { answered <- other.answer(t) }()
	select {
	case got := <-answered:
		t.Errorf("the second goes on unacknowledged: %q", got)
	case <-time.After(50 * time.Millisecond):
	}
	h.acknowledge(true)
	if got := <-answered; got != fmt.Sprintf("0 %d", unix.ENOENT) {
		t.Errorf("the second: %q", got)
	}
}

// TestHostDies has a host that is gone, or cannot be followed: audited calls that wait, and all later ones, get ENOSYS.
func TestHostDies(t *testing.T) {
	tests := []struct {
		name  string
		end   func(h *host) error
		fatal string
	}{
		{"stdin ends", func(h *host) error { return h.resident.stdin.Close() }, ""},
		{"half a frame", func(h *host) error {
			_, err := h.resident.stdin.Write(frame(5, 8))
			return errors.Join(err, h.resident.stdin.Close())
		}, "ends early"},
		{"another's frame", func(h *host) error {
			_, err := h.resident.stdin.Write(append(frame(5, 8), make([]byte, 8+channel.MACSize)...))
			return err
		}, "not of this peer"},
		{"garbage", func(h *host) error { _, err := h.resident.stdin.WriteString("stop now\n"); return err }, "not a frame"},
		{"acknowledges what was not sent", func(h *host) error { return h.out.Send(channel.Ack{Seq: 1 << 40}) }, "acknowledges event"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := stand(t, options{ordered: true})
			h.acknowledge(false)
			h.c.init.post(t, "opens 3 /etc/passwd")
			h.await("a call waits", func() bool { return h.open > 0 })
			if err := test.end(h); err != nil {
				t.Fatal(err)
			}
			if text := h.ended(); text == "" != (test.fatal == "") || !strings.Contains(text, test.fatal) {
				t.Errorf("last words %q, want %q", text, test.fatal)
			}
			if got := h.c.init.answer(t); got != fmt.Sprintf("0 %d", unix.ENOSYS) {
				t.Errorf("opens: %q, want ENOSYS", got)
			}
			if status := h.resident.wait(t); (status == 0) != (test.fatal == "") {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// TestStopWhileWaiting: Stop does not wait for acknowledgements, and loses no count of denials.
func TestStopWhileWaiting(t *testing.T) {
	h := stand(t, options{ordered: true})
	if got := h.c.init.ask(t, "deny 1000"); got != "1000 13" {
		t.Fatalf("deny: %q", got)
	}
	h.acknowledge(false)
	h.c.init.post(t, "opens 1 /etc/passwd")
	h.await("a call waits", func() bool { return h.open > 0 })
	h.send(channel.Stop{})
	if text := h.ended(); text != "" {
		t.Errorf("last words %q", text)
	}
	if got := h.c.init.answer(t); got != fmt.Sprintf("0 %d", unix.ENOSYS) {
		t.Errorf("opens: %q", got)
	}
	if got := h.calls("getppid", ""); got != 1000 || h.folded != 0 {
		t.Errorf("%d denials in records, %d still counted", got, h.folded)
	}
}

// TestStopWithoutCredit stops a resident that has just counted denials and has no room for their record.
func TestStopWithoutCredit(t *testing.T) {
	h := stand(t, options{})
	other := h.exec("other", 0, "workload")
	h.acknowledge(false)
	h.c.init.post(t, "opens %d /etc/passwd", 3000) // their records are more than the credit
	h.await("the credit is used up", func() bool { return h.open > channel.MaxRecord-2000 })
	if got := other.ask(t, "deny 100"); got != "100 13" {
		t.Errorf("deny: %q", got)
	}
	h.send(channel.Stop{})
	h.ended()
	if got := h.calls("getppid", "") + int(h.folded); got != 100 {
		t.Errorf("%d denials in records or counted, want 100", got)
	}
}

// TestManyDenials: equal denials in numbers become a few frames, and none is left out.
func TestManyDenials(t *testing.T) {
	h := stand(t, options{ordered: true})
	const denials = 30000
	began := time.Now()
	if got := h.c.init.ask(t, "deny %d", denials); got != fmt.Sprintf("%d 13", denials) {
		t.Fatalf("deny: %q", got)
	}
	h.send(channel.Stop{})
	if text := h.ended(); text != "" {
		t.Errorf("last words %q", text)
	}
	took := time.Since(began)
	if got := h.calls("getppid", ""); got != denials || h.folded != 0 {
		t.Errorf("%d denials in records, %d still counted; want %d", got, h.folded, denials)
	}
	// One each 50 ms, and one before each record that stands for several.
	if most := int(took/(50*time.Millisecond)) + len(h.events) + 1; h.folds > most {
		t.Errorf("%d Folds in %v and %d events, want at most %d", h.folds, took, len(h.events), most)
	}
}
