// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/plan"
)

// TestBounds sends what is just in and just out of bounds. What is out is refused by both ends.
func TestBounds(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	start := func(change func(*Start)) Start {
		m := Start{Secret: secret, Program: []byte{1}, Credit: MaxRecord}
		change(&m)
		return m
	}
	expect := func(change func(*Expect)) Expect {
		m := Expect{ID: 1, Token: "T", Plan: []byte{1}}
		change(&m)
		return m
	}
	control := func(s ...Setting) Control { return Control{ID: 1, Settings: s} }
	tests := []struct {
		name string
		m    Message
		want error
	}{
		{"largest program", start(func(m *Start) { m.Program = make([]byte, MaxProgram) }), nil},
		{"program", start(func(m *Start) { m.Program = make([]byte, MaxProgram+1) }), ErrSize},
		{"no program", start(func(m *Start) { m.Program = nil }), ErrSize},
		{"least credit", start(func(m *Start) { m.Credit = MaxRecord }), nil},
		{"little credit", start(func(m *Start) { m.Credit = MaxRecord - 1 }), ErrSize},
		{"much credit", start(func(m *Start) { m.Credit = MaxCredit + 1 }), ErrSize},
		{"settings", start(func(m *Start) { m.Settings = make([]Setting, MaxSettings+1) }), ErrSize},
		{"watch", start(func(m *Start) { m.Watch = make([]string, MaxSettings+1) }), ErrSize},
		{"watch elsewhere", start(func(m *Start) { m.Watch = []string{"../cpu.max"} }), ErrValue},
		{"everything", start(func(m *Start) {
			m.Program = make([]byte, MaxProgram)
			for range MaxSettings {
				m.Settings = append(m.Settings, Setting{long(MaxFile), long(MaxText)})
				m.Watch = append(m.Watch, long(MaxFile))
			}
		}), nil},
		{"id 0", expect(func(m *Expect) { m.ID = 0 }), ErrValue},
		{"longest exec", expect(func(m *Expect) { m.Exec = long(MaxName) }), nil},
		{"exec", expect(func(m *Expect) { m.Exec = long(MaxName + 1) }), ErrSize},
		{"no token", expect(func(m *Expect) { m.Token = "" }), ErrSize},
		{"token", expect(func(m *Expect) { m.Token = long(MaxToken + 1) }), ErrSize},
		{"token with a blank", expect(func(m *Expect) { m.Token = "A B" }), ErrValue},
		{"no plan", expect(func(m *Expect) { m.Plan = nil }), ErrSize},
		{"largest plan", expect(func(m *Expect) { m.Plan = make([]byte, MaxPlan) }), nil},
		{"plan", expect(func(m *Expect) { m.Plan = make([]byte, MaxPlan+1) }), ErrSize},
		{"file", control(Setting{File: "cgroup.procs"}), nil},
		{"no file", control(Setting{}), ErrValue},
		{"directory", control(Setting{File: "a/b"}), ErrValue},
		{"parent", control(Setting{File: ".."}), ErrValue},
		{"upper case", control(Setting{File: "CPU"}), ErrValue},
		{"long file", control(Setting{File: long(MaxFile + 1)}), ErrValue},
		{"two lines", control(Setting{"pids.max", "1\nmax"}), ErrValue},
		{"long line", control(Setting{"pids.max", long(MaxText + 1)}), ErrSize},
		{"value and problem", Report{ID: 1, Values: []Value{{File: "a", Text: "x", Problem: "y"}}}, ErrValue},
		{"values", Found{ID: 1, Values: make([]Value, MaxSettings+1)}, ErrSize},
		{"value elsewhere", Report{ID: 1, Values: []Value{{File: "/a"}}}, ErrValue},
		{"largest record", Event{Seq: 1, Record: make([]byte, MaxRecord)}, nil},
		{"record", Event{Seq: 1, Record: make([]byte, MaxRecord+1)}, ErrSize},
		{"least record", Event{Seq: 1, Record: make([]byte, MinRecord)}, nil},
		{"short record", Event{Seq: 1, Record: make([]byte, MinRecord-1)}, ErrSize},
		{"event 0", Event{Record: make([]byte, MinRecord)}, ErrValue},
		{"acknowledge nothing", Ack{}, ErrValue},
		{"fold nothing", Fold{}, ErrValue},
		{"arm 0", Arm{}, ErrValue},
		{"fail 0", Failed{}, ErrValue},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var buf bytes.Buffer
			s := NewSender(&buf, secret, direction(tt.m))
			if tt.m.kind() != kindStart {
				s.maker.skip(direction(tt.m))
			}
			if err := s.Send(tt.m); !errors.Is(err, tt.want) {
				t.Errorf("send: got %v, want %v", err, tt.want)
			}
			_, err := receive(tt.m.kind(), direction(tt.m), forge(tt.m))
			if (err == nil) != (tt.want == nil) {
				t.Errorf("receive: got %v, want %v", err, tt.want)
			}
		})
	}
}

// forge makes the frame of a message that Send may refuse.
func forge(m Message) []byte {
	frame := m.append([]byte{'M', 'C', Version, byte(m.kind()), 0, 0, 0, 0})
	return seal(m.kind(), frame[HeaderSize:])
}

// seal makes a frame of a body.
func seal(k kind, body []byte) []byte {
	frame := append(appendU32([]byte{'M', 'C', Version, byte(k)}, uint32(len(body))), body...)
	d, _, _ := k.bounds()
	m := newMaker(&secret, d)
	if k != kindStart {
		m.skip(d)
	}
	return append(frame, m.next(frame)...)
}

// TestBodies refuses bodies that no sender makes, though their MAC is right.
func TestBodies(t *testing.T) {
	le := func(values ...uint32) (b []byte) {
		for _, v := range values {
			b = appendU32(b, v)
		}
		return b
	}
	tests := []struct {
		name string
		k    kind
		body []byte
		want error
	}{
		{"trailing", kindControl, le(1, 0, 0, 0), ErrTrailing},
		{"count without items", kindControl, le(1, 0, 2, 0), ErrTruncated},
		{"count out of bounds", kindControl, le(1, 0, 1<<31, 0), ErrSize},
		{"length out of bounds", kindFatal, le(MaxText + 1), ErrSize},
		{"length past the end", kindFatal, le(5), ErrTruncated},
		{"control character", kindFatal, append(le(1), 0x1b), ErrValue},
		{"not ASCII", kindFatal, append(le(1), 0xff), ErrValue},
		{"bool of 2", kindFound, append(le(1, 0, 1, 0, 0, 0, 0), 2, 0, 0, 0, 0), ErrValue},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _, _ := tt.k.bounds()
			if m, err := receive(tt.k, d, seal(tt.k, tt.body)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v, want %v", m, err, tt.want)
			}
		})
	}
}

// TestTexts sends what people read: it always arrives, in a form that a terminal can show.
func TestTexts(t *testing.T) {
	hostile := "a\x1b[2J\x00ö\r\n\tb"
	const tame = "a?[2J???\x3f\n\tb" // two bytes of the ö
	huge := strings.Repeat("é", MaxText)
	tests := []struct {
		m    Message
		text func(Message) string
		want string
	}{
		{Fatal{Text: hostile}, func(m Message) string { return m.(Fatal).Text }, tame},
		{Fatal{Text: huge}, func(m Message) string { return m.(Fatal).Text }, strings.Repeat("?", MaxText)},
		{Failed{ID: 1, Text: hostile}, func(m Message) string { return m.(Failed).Text }, tame},
		{Failed{ID: 1, Arg: huge}, func(m Message) string { return m.(Failed).Arg }, huge[:MaxText]},
		{Report{ID: 1, Problem: hostile}, func(m Message) string { return m.(Report).Problem }, tame},
		{Ready{Kernel: huge}, func(m Message) string { return m.(Ready).Kernel }, strings.Repeat("?", MaxName)},
		{Found{ID: 1, Values: []Value{{File: "a", Text: hostile}}}, func(m Message) string { return m.(Found).Values[0].Text }, tame},
	}
	for _, tt := range tests {
		got, err := receive(tt.m.kind(), direction(tt.m), send(t, tt.m))
		if err != nil {
			t.Errorf("%T: %v", tt.m, err)
			continue
		}
		if text := tt.text(got); text != tt.want {
			t.Errorf("%T: got %q, want %q", tt.m, text, tt.want)
		}
	}
}

// TestBoundsOfOthers compares our bounds with those of what we carry.
func TestBoundsOfOthers(t *testing.T) {
	const longest = plan.MaxInsns*plan.InsnSize + plan.MaxEnvSize + 8*plan.MaxEnv + plan.MaxRlimits*20 + 128
	if MaxPlan < plan.HeaderSize+longest || MaxToken != plan.MaxToken || MaxText < plan.MaxArg || MaxRecord != audit.MaxRecord {
		t.Error("a bound of the channel is not that of package plan or audit")
	}
	least := audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{}}
	if n := len(least.AppendJSON(nil, &audit.Identity{}, 1)); n < MinRecord {
		t.Errorf("a record can have %d bytes", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages {
		f.Add(byte(m.kind()), m.append(nil))
	}
	f.Fuzz(func(t *testing.T, k byte, body []byte) {
		m, err := decode(kind(k), body)
		if err != nil {
			return
		}
		if again := m.append(nil); !bytes.Equal(again, body) {
			t.Fatalf("%+v: decoded from\n%x and encoded to\n%x", m, body, again)
		}
		if _, least, most := m.kind().bounds(); byte(m.kind()) != k || len(body) < least || len(body) > most {
			t.Fatalf("%T of %d bytes, bounds are %d to %d", m, len(body), least, most)
		}
	})
}

func FuzzReceive(f *testing.F) {
	var guest, host []byte
	for _, m := range messages {
		if direction(m) == GuestToHost {
			guest = append(guest, send(f, m)...)
		} else {
			host = append(host, send(f, m)...)
		}
		f.Add(send(f, m))
	}
	f.Add(guest)
	f.Add(host)
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, d := range []Direction{HostToGuest, GuestToHost} {
			r := NewReceiver(bytes.NewReader(in), secret, d)
			for {
				m, err := r.Receive()
				if err != nil {
					break
				}
				if direction(m) != d {
					t.Fatalf("%T from the wrong side", m)
				}
			}
		}
		start, r, err := ReceiveStart(bytes.NewReader(in))
		if err != nil {
			return
		}
		if frame := NewSender(io.Discard, start.Secret, HostToGuest); frame.Send(start) != nil {
			t.Fatal("taken, but not sent")
		}
		for err == nil {
			_, err = r.Receive()
		}
	})
}
