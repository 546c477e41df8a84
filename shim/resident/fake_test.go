// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// testPlan is a plan that can be sent.
var testPlan = &plan.Plan{Filter: plan.AppendInsn(nil, 6, 0, 0, 0x7fff0000)}

// guest is a resident as a test wants it to be. Its script ends when its process would.
type guest struct {
	in     *os.File
	out    *os.File
	secret [channel.SecretSize]byte
	recv   *channel.Receiver
	send   *channel.Sender
	start  channel.Start
	dead   chan struct{} // closed when it is killed
}

// begin reads Start.
func (g *guest) begin() bool {
	start, recv, err := channel.ReceiveStart(g.in)
	if err != nil {
		return false
	}
	g.start, g.recv, g.secret = start, recv, start.Secret
	g.send = channel.NewSender(g.out, start.Secret, channel.GuestToHost)
	return true
}

// ready begins and says so.
func (g *guest) ready() bool { return g.begin() && g.say(channel.Ready{Version: "v", Tasks: 9}) }

// say sends messages; false: the host, or who kills us, has closed the pipe.
func (g *guest) say(messages ...channel.Message) bool {
	for _, m := range messages {
		if g.send.Send(m) != nil {
			return false
		}
	}
	return true
}

// hear reads a message; nil at the end.
func (g *guest) hear() channel.Message {
	m, err := g.recv.Receive()
	if err != nil {
		return nil
	}
	return m
}

// event makes the event with number seq from a change to a plain one.
func event(seq uint64, change func(*audit.Event)) channel.Event {
	ev := audit.Event{Time: time.Now(), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		Syscall: "openat", Verdict: audit.VerdictAllowed,
		Args: []audit.Arg{{Name: "path", Value: fmt.Sprint("/", seq), Evidence: audit.EvidencePeeked}},
	}}
	if change != nil {
		change(&ev)
	}
	return channel.Event{Seq: seq, Record: ev.AppendJSON(nil, &audit.Identity{}, 1)}
}

// serve answers as an honest resident does, until the end.
func (g *guest) serve() {
	for m := g.hear(); m != nil; m = g.hear() {
		switch m := m.(type) {
		case channel.Expect:
			g.say(channel.Found{ID: m.ID, PID: 7, Seccomp: 2})
		case channel.Arm:
			g.say(channel.Armed(m))
		case channel.Cancel:
			g.say(channel.Failed{ID: m.ID, Text: "canceled"})
		case channel.Control:
			g.say(channel.Report{ID: m.ID, Values: []channel.Value{{File: "pids.max", Text: m.Settings[0].Value}}})
		case channel.Stop:
			return
		}
	}
}

// armed is ready and has one launch armed.
func (g *guest) armed() bool {
	if !g.ready() {
		return false
	}
	for m := g.hear(); m != nil; m = g.hear() {
		switch m := m.(type) {
		case channel.Expect:
			g.say(channel.Found{ID: m.ID, PID: 7, Seccomp: 2})
		case channel.Arm:
			return g.say(channel.Armed(m))
		}
	}
	return false
}

// delegate runs guests as its hidden exec session.
type delegate struct {
	t      *testing.T
	r      *Resident
	script func(*guest)
	refuse map[string]error // by method
	stuck  string           // a method that goes on as long as its caller does
	quiet  bool             // does not say that the session ended
	over   bool             // the container's first process has ended
	status uint32           // of the session's process

	mu    sync.Mutex
	calls []string
	req   *taskapi.ExecProcessRequest
	guest *guest
	ended chan struct{} // closed when the session's process has; nil: it was not started
}

func (d *delegate) invoke(ctx context.Context, method string, req, resp proto.Message) error {
	d.mu.Lock()
	d.calls = append(d.calls, method)
	d.mu.Unlock()
	if err := d.refuse[method]; err != nil {
		return err
	}
	if method == d.stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	switch req := req.(type) {
	case *taskapi.ExecProcessRequest:
		d.req = req
	case *taskapi.StartRequest:
		return d.run(req)
	case *taskapi.KillRequest:
		d.kill()
	case *taskapi.WaitRequest:
		if d.ended == nil {
			return errgrpc.ToGRPC(errdefs.ErrNotFound)
		}
		select {
		case <-d.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	case *taskapi.StateRequest:
		d.state(req, resp.(*taskapi.StateResponse))
	case *taskapi.DeleteRequest:
		if d.ended == nil {
			return nil
		}
		select {
		case <-d.ended:
		default:
			return errors.New("cannot delete a running process")
		}
	}
	return nil
}

// run opens the FIFOs as containerd's shims do and runs the script.
func (d *delegate) run(req *taskapi.StartRequest) error {
	if req.ExecID != d.req.ExecID || req.ID != d.req.ID {
		return errdefs.ErrNotFound
	}
	in, err := os.OpenFile(d.req.Stdin, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(d.req.Stdout, os.O_WRONLY, 0)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	d.mu.Lock()
	d.guest, d.ended = &guest{in: in, out: out, dead: make(chan struct{})}, make(chan struct{})
	d.mu.Unlock()
	go func() {
		if d.script != nil {
			d.script(d.guest)
		}
		close(d.ended) // before its output ends: who sees that end and asks is told the status
		d.kill()
		if !d.quiet {
			d.r.Exited(d.status)
		}
	}()
	return nil
}

// kill closes the process's files: its script sees that at the next use.
func (d *delegate) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.guest == nil {
		return
	}
	select {
	case <-d.guest.dead:
	default:
		close(d.guest.dead)
		d.guest.in.Close()
		d.guest.out.Close()
	}
}

func (d *delegate) called(method string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.calls, method)
}

// sink is a stream in memory.
type sink struct {
	mu      sync.Mutex
	fail    error // guarded by mu, as all below
	events  []audit.Event
	folds   uint64 // counted
	settled uint64
	tries   int
}

func (s *sink) Fold(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folds += n
	return s.fail
}

func (s *sink) AppendFolded(ev *audit.Event, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.fail != nil {
		return s.fail
	}
	s.events = append(s.events, *ev)
	s.settled += n
	return nil
}

func (s *sink) set(fail error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *sink) kept() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// stage is a resident with all that is around it.
type stage struct {
	*delegate
	sink  *sink
	lost  chan audit.Loss
	inits chan struct{}
}

// setUp makes a stage. At the test's end nothing of it may be left.
func setUp(t *testing.T, script func(*guest), change func(*Config)) *stage {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	d := &delegate{t: t, script: script, status: 3}
	s := &stage{delegate: d, sink: &sink{}, lost: make(chan audit.Loss, 9), inits: make(chan struct{}, 9)}
	dir := t.TempDir()
	cfg := Config{
		Container: "c", Helper: "/.metsuke-0123/guest", ExecID: "metsuke-x", Dir: dir, Invoke: d.invoke, Sink: s.sink,
		Start:  channel.Start{Program: []byte("p"), Ordered: true, Credit: channel.MaxRecord},
		OnLoss: func(l audit.Loss) { s.lost <- l }, OnKillInit: func() { s.inits <- struct{}{} },
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if s.r, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	s.r.grace, s.r.drain = 10*time.Millisecond, patience
	t.Cleanup(func() {
		if err := s.r.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the directory: %v, %v", left, err)
		}
		if s.called("Exec") && !s.called("Delete") {
			t.Error("the exec session was not deleted")
		}
		deadline := time.Now().Add(patience)
		for runtime.NumGoroutine() > goroutines || len(openFiles(t)) > len(files) {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<16)
				t.Fatalf("left behind: files %q, before %q\n%s", openFiles(t), files, buf[:runtime.Stack(buf, true)])
			}
			time.Sleep(time.Millisecond)
		}
	})
	return s
}

// openFiles lists what our descriptors are, but for those of the runtime's poller and the directory's own.
func openFiles(t *testing.T) (files []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(link, "anon_inode:") && !strings.HasPrefix(link, "/proc/") {
			files = append(files, link)
		}
	}
	return files
}

func (s *stage) launch() (channel.Ready, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return s.r.Launch(ctx)
}

func (s *stage) mustLaunch() {
	s.t.Helper()
	if _, err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
}

// loss waits for OnLoss.
func (s *stage) loss() audit.Loss {
	s.t.Helper()
	select {
	case l := <-s.lost:
		return l
	case <-time.After(patience):
		s.t.Fatal("no loss was told")
		panic("unreachable")
	}
}

// finished waits until everything that came is kept, and returns it.
func (s *stage) finished() []audit.Event {
	s.t.Helper()
	select {
	case <-s.r.kept:
	case <-time.After(patience):
		s.t.Fatal("it has not ended")
	}
	return s.sink.kept()
}

// forge sends a frame that no Sender of this secret makes.
func forge(secret [channel.SecretSize]byte, d channel.Direction, messages ...channel.Message) []byte {
	var buf bytes.Buffer
	to := channel.NewSender(&buf, secret, d)
	for _, m := range messages {
		if err := to.Send(m); err != nil {
			panic(err)
		}
	}
	return buf.Bytes()
}
