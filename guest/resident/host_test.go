// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/seccomp"
)

// patience is what a step takes at the very most, on a machine that is busy with other tests.
const patience = 60 * time.Second

// policy is what the tests enforce: openat is audited, getppid denied, personality kills.
var policy = seccomp.Policy{
	Native: seccomp.NativeArch(),
	Layers: []seccomp.Layer{{
		Name: "test", Default: seccomp.ActionAllow,
		Deny: []seccomp.Rule{{ID: "deny[0]", Syscalls: []string{"getppid"}, Errno: uint16(unix.EACCES)}},
		Kill: []seccomp.Rule{{ID: "kill[0]", Syscalls: []string{"personality"}}},
	}},
	Audit: []seccomp.AuditRule{{ID: "file-read", Class: "file-read", Syscalls: []string{"openat"}}},
}

// compiled returns the policy as the resident and the launcher get it.
var compiled = sync.OnceValue(func() (c struct{ program, filter []byte }) {
	program, err := seccomp.Compile(policy)
	if err != nil {
		panic(err)
	}
	if c.program, err = program.MarshalBinary(); err != nil {
		panic(err)
	}
	for _, in := range program.Filter() {
		c.filter = plan.AppendInsn(c.filter, in.Code, in.JT, in.JF, in.K)
	}
	return c
})

// host is the shim's end of a resident's channel.
type host struct {
	t        testing.TB
	c        *container
	resident *process
	out      *channel.Sender
	ready    channel.Ready
	nextID   uint64

	mu      sync.Mutex
	changed sync.Cond           // of mu: any below
	events  []*audit.Event      // guarded by mu, as all below
	open    int                 // bytes of records that are not acknowledged
	most    int                 // the most that open ever was
	seq     uint64              // of the last event
	hold    bool                // acknowledge nothing
	folded  uint64              // counted by Fold and in no record yet
	folds   int                 // frames
	said    []channel.Message   // all else
	byID    map[uint64]*wasSaid // of launches and controls
	err     error               // why there is no more to read
}

// wasSaid is what the resident said of one number.
type wasSaid struct {
	found  *channel.Found
	armed  bool
	failed *channel.Failed
	report *channel.Report
}

// options are how a resident is started.
type options struct {
	ordered bool
	credit  uint32 // 0: the least
	start   func(*channel.Start)
	env     []string
	caps    uint64       // 0: as the rewrite gives it
	change  func() error // on the thread that starts it
}

// newHost starts the container's resident.
func newHost(t testing.TB, c *container, o options) *host {
	t.Helper()
	h := &host{t: t, c: c, byID: map[uint64]*wasSaid{}}
	h.changed.L = &h.mu
	start := channel.Start{Program: compiled().program, Ordered: o.ordered, Credit: max(o.credit, channel.MaxRecord)}
	rand.Read(start.Secret[:])
	if o.start != nil {
		o.start(&start)
	}
	cmd := exec.Command(private.Guest, "audit")
	cmd.Env = append([]string{}, o.env...)
	if o.caps == 0 {
		o.caps = addedCaps
	}
	h.resident = c.start(cmd, o.caps, o.change)
	h.out = channel.NewSender(h.resident.stdin, start.Secret, channel.HostToGuest)
	in := channel.NewReceiver(h.resident.stdout, start.Secret, channel.GuestToHost)
	go h.read(in)
	h.send(start)
	return h
}

// standing starts one that must become ready.
func standing(t testing.TB, c *container, o options) *host {
	t.Helper()
	h := newHost(t, c, o)
	h.await("the resident is ready", func() bool {
		for _, m := range h.said {
			if ready, ok := m.(channel.Ready); ok {
				h.ready = ready
				return true
			}
		}
		return false
	})
	return h
}

func (h *host) send(m channel.Message) {
	h.t.Helper()
	if err := h.out.Send(m); err != nil && !errors.Is(err, unix.EPIPE) {
		h.t.Fatalf("send %T: %v", m, err)
	}
}

// read takes what the resident says, to the end.
func (h *host) read(in *channel.Receiver) {
	for {
		m, err := in.Receive()
		h.mu.Lock()
		if err != nil {
			h.err = err
			h.changed.Broadcast()
			h.mu.Unlock()
			return
		}
		h.take(m)
		ack := !h.hold && h.open > 0
		if ack {
			h.open = 0
		}
		seq := h.seq
		h.changed.Broadcast()
		h.mu.Unlock()
		if ack {
			_ = h.out.Send(channel.Ack{Seq: seq})
		}
	}
}

// take keeps one message, and checks what the channel promises. The caller holds mu.
func (h *host) take(m channel.Message) {
	switch m := m.(type) {
	case channel.Event:
		h.seq++
		if m.Seq != h.seq {
			h.t.Errorf("event %d comes after %d", m.Seq, h.seq-1)
		}
		r, err := record.ParseStrict(m.Record)
		if err != nil {
			h.t.Errorf("event %d: %v\n%s", m.Seq, err, m.Record)
			return
		}
		if r.Seq != 1 || r.Identity != (audit.Identity{}) {
			h.t.Errorf("event %d has number %d and identity %+v", m.Seq, r.Seq, r.Identity)
		}
		if h.folded < m.Folded {
			h.t.Errorf("event %d stands for %d folded denials, only %d were counted", m.Seq, m.Folded, h.folded)
		}
		h.folded -= m.Folded
		h.open += len(m.Record)
		h.most = max(h.most, h.open)
		h.events = append(h.events, &r.Event)
	case channel.Fold:
		h.folded += m.N
		h.folds++
	case channel.Found:
		h.of(m.ID).found = &m
	case channel.Armed:
		h.of(m.ID).armed = true
	case channel.Failed:
		h.of(m.ID).failed = &m
	case channel.Report:
		h.of(m.ID).report = &m
	default:
		h.said = append(h.said, m)
	}
}

// of is what was said of a number. The caller holds mu.
func (h *host) of(id uint64) *wasSaid {
	if h.byID[id] == nil {
		h.byID[id] = &wasSaid{}
	}
	return h.byID[id]
}

// heard is what was said of a number until now.
func (h *host) heard(id uint64) wasSaid {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.of(id)
}

// await waits until ok, which is called with mu held.
func (h *host) await(what string, ok func() bool) {
	h.t.Helper()
	if !h.within(patience, ok) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.t.Fatalf("never: %s; the resident said %+v, then %v; stderr %q", what, h.said, h.err, h.resident.stderr)
	}
}

// within waits until ok, but no longer than limit, and no longer than there is something to read.
func (h *host) within(limit time.Duration, ok func() bool) bool {
	timer := time.AfterFunc(limit, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.changed.Broadcast()
	})
	defer timer.Stop()
	end := time.Now().Add(limit)
	h.mu.Lock()
	defer h.mu.Unlock()
	for !ok() {
		if h.err != nil || !time.Now().Before(end) {
			return false
		}
		h.changed.Wait()
	}
	return true
}

// ended waits for the end of the channel and returns the last words; "" if there were none.
func (h *host) ended() string {
	h.t.Helper()
	h.within(patience, func() bool { return h.err != nil })
	h.mu.Lock()
	defer h.mu.Unlock()
	if !errors.Is(h.err, io.EOF) {
		h.t.Fatalf("the channel ends with %v", h.err)
	}
	if len(h.said) > 0 {
		if fatal, ok := h.said[len(h.said)-1].(channel.Fatal); ok {
			return fatal.Text
		}
	}
	return ""
}

// acknowledge ends or begins a time in which the host's disk takes nothing.
func (h *host) acknowledge(on bool) {
	h.mu.Lock()
	h.hold = !on
	seq, ack := h.seq, on && h.open > 0
	if ack {
		h.open = 0
	}
	h.mu.Unlock()
	if ack {
		h.send(channel.Ack{Seq: seq})
	}
}

// calls counts the events of a call with an argument; "" is any.
func (h *host) calls(name, arg string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Syscall == nil || e.Syscall.Syscall != name {
			continue
		}
		match := arg == ""
		for _, a := range e.Syscall.Args {
			match = match || a.Value == arg
		}
		if match {
			n += int(max(e.Syscall.Count, 1))
		}
	}
	return n
}

// last returns the last event of a call.
func (h *host) last(name string) audit.Syscall {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.events) - 1; i >= 0; i-- {
		if s := h.events[i].Syscall; s != nil && s.Syscall == name {
			return *s
		}
	}
	h.t.Fatalf("no event of %s", name)
	return audit.Syscall{}
}

// testPlan is what the launchers of the tests are told.
func testPlan() *plan.Plan {
	return &plan.Plan{
		Filter: compiled().filter, NoNewPrivs: true,
		Caps: &plan.Caps{Bounding: workloadCaps, Effective: workloadCaps},
	}
}

// expect announces a launch and returns its number.
func (h *host) expect(exec, token string, p *plan.Plan) uint64 {
	h.t.Helper()
	frame, err := p.Append(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	h.nextID++
	h.send(channel.Expect{ID: h.nextID, Exec: exec, Token: token, Plan: frame})
	return h.nextID
}

// arm sees a launch through to its end.
func (h *host) arm(id uint64) *channel.Failed {
	h.t.Helper()
	h.await("the launcher is found", func() bool { return h.of(id).found != nil || h.of(id).failed != nil })
	if failed := h.heard(id).failed; failed != nil {
		return failed
	}
	h.send(channel.Arm{ID: id})
	h.await("the launcher is armed", func() bool { return h.of(id).armed || h.of(id).failed != nil })
	return h.heard(id).failed
}

// command is what a launcher is started with.
func command(token string, argv ...string) *exec.Cmd {
	return exec.Command(private.Guest, append([]string{"run", token, "--"}, argv...)...)
}

// exec adds a session to the container and returns it when it is the workload.
func (h *host) exec(name string, uid uint32, argv ...string) *process {
	h.t.Helper()
	token := rendezvous.NewToken()
	id := h.expect(name, token, testPlan())
	cmd := command(token, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	p := h.c.start(cmd, h.c.caps, nil)
	if failed := h.arm(id); failed != nil {
		h.t.Fatalf("exec %s: %+v; stderr %q", name, failed, p.stderr)
	}
	return p
}

// stand makes a container whose first process is the workload, supervised by a resident, as in a Start of the shim's.
func stand(t testing.TB, o options) *host {
	t.Helper()
	token := rendezvous.NewToken()
	c := newContainer(t, nil, append([]string{private.Guest, "run", token, "--"}, "workload")...)
	h := standing(t, c, o)
	if failed := h.arm(h.expect("", token, testPlan())); failed != nil {
		t.Fatalf("the container does not start: %+v; stderr %q", failed, c.init.stderr)
	}
	return h
}

// frame is the raw beginning of a frame, for tests that break the channel.
func frame(kind byte, size uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{'M', 'C', channel.Version, kind}, size)
}
