// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var secret = [SecretSize]byte{0: 1, 31: 2}

// skip counts Start as sent.
func (m *maker) skip(d Direction) {
	if d == HostToGuest {
		m.place[1]++
	}
}

// started returns a Sender that sends as after Start.
func started(w io.Writer, d Direction) *Sender {
	s := NewSender(w, secret, d)
	s.maker.skip(d)
	return s
}

// direction returns the direction of a message.
func direction(m Message) Direction {
	d, _, _ := m.kind().bounds()
	return d
}

// send returns the frame of a message, which is the first or, for the host's, the one after Start.
func send(t testing.TB, m Message) []byte {
	t.Helper()
	var buf bytes.Buffer
	s := NewSender(&buf, secret, direction(m))
	if m.kind() != kindStart {
		s.maker.skip(direction(m))
	}
	if err := s.Send(m); err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	return buf.Bytes()
}

// receive reads what send made, to the end.
func receive(k kind, d Direction, frame []byte) (Message, error) {
	in := bytes.NewReader(frame)
	if k == kindStart {
		m, _, err := ReceiveStart(in)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	r := NewReceiver(in, secret, d)
	r.maker.skip(d)
	m, err := r.Receive()
	if err != nil {
		return nil, err
	}
	if _, err := r.Receive(); !errors.Is(err, io.EOF) {
		return nil, err
	}
	return m, nil
}

var (
	settings = []Setting{{"pids.max", "256"}, {"io.max", "8:0 rbps=1 wbps=max"}, {"cpuset.cpus", ""}}
	values   = []Value{{File: "pids.max", Text: "256"}, {File: "io.max", Text: "8:0 rbps=1\n8:16 rbps=2"}, {File: "memory.high", Problem: "none"}}
)

// messages are one or more of each type, all in bounds.
var messages = []Message{
	Start{Secret: secret, Program: []byte("program"), Ordered: true, Credit: MaxRecord, Continue: true, Cgroup: true,
		Settings: settings, Watch: []string{"pids.max", "cpu.max"}},
	Start{Secret: secret, Program: []byte{0}, Credit: MaxCredit},
	Expect{ID: 1, Token: "TOKEN", Plan: []byte("plan")},
	Expect{ID: 1<<64 - 1, Exec: "an exec", Token: strings.Repeat("T", MaxToken), Plan: []byte{0, 1}},
	Cancel{ID: 2},
	Arm{ID: 3},
	Ack{Seq: 4},
	Control{ID: 5, Settings: settings},
	Control{ID: 5, Helper: true},
	Stop{},
	Ready{Version: "v1", Kernel: "6.18", Tasks: 12},
	Ready{},
	Found{ID: 1, PID: 2, UID: 3, GID: 4, Seccomp: 2, Filters: 5, NoNewPrivs: true, Values: values},
	Found{ID: 1},
	Armed{ID: 6},
	Failed{ID: 7, Stage: 3, Errno: 13, Arg: "sh\xff\x00", Text: "it could not"},
	Event{Seq: 8, Folded: 9, Record: bytes.Repeat([]byte(`{"v":1}`), 20)},
	Fold{N: 10},
	Report{ID: 11, Values: values, Problem: "EPERM"},
	KillInit{},
	Fatal{Text: "no procfs"},
}

func TestRoundTrip(t *testing.T) {
	seen := map[kind]bool{}
	for _, m := range messages {
		seen[m.kind()] = true
		got, err := receive(m.kind(), direction(m), send(t, m))
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%T (-sent +received):\n%s", m, diff)
		}
	}
	for k := range 256 {
		if _, _, most := kind(k).bounds(); most > 0 && !seen[kind(k)] {
			t.Errorf("type %d is in no test", k)
		}
	}
}
