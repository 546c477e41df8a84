// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/integration/stand"
)

// task is the container as containerd has it, by a client that the caller closes.
func (c *container) task() (task containerd.Task, closeClient func()) {
	t, ctx := c.p.h.t, c.p.h.ctx
	t.Helper()
	client, err := c.p.h.Containerd()
	if err != nil {
		t.Fatal(err)
	}
	closeClient = func() { _ = client.Close() }
	loaded, err := client.LoadContainer(ctx, c.ID)
	if err == nil {
		task, err = loaded.Task(ctx, nil)
	}
	if err != nil {
		closeClient()
		t.Fatal(err)
	}
	return task, closeClient
}

// session is an exec session by containerd's own API, with streams of the test's.
type session struct {
	containerd.Process
	exited <-chan containerd.ExitStatus
	stdout bytes.Buffer // complete once ended has returned
	c      *container
}

// begin starts an exec session of a process that is the container's, changed. A nil stdin is none.
func (c *container) begin(task containerd.Task, id string, stdin io.Reader, change func(*specs.Process)) *session {
	t, ctx := c.p.h.t, c.p.h.ctx
	t.Helper()
	spec, err := task.Spec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := *spec.Process
	process.Terminal = false
	change(&process)
	s := &session{c: c}
	if s.Process, err = task.Exec(ctx, id, &process, cio.NewCreator(cio.WithStreams(stdin, &s.stdout, io.Discard))); err != nil {
		t.Fatal(err)
	}
	if s.exited, err = s.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// ended waits for the session's end, which must be with status 0, and returns what it wrote.
func (s *session) ended() string {
	t := s.c.p.h.t
	t.Helper()
	status := <-s.exited
	s.IO().Wait() // Delete does not
	if _, err := s.Delete(s.c.p.h.ctx); err != nil || status.ExitCode() != 0 {
		t.Errorf("session %s: status %d, %v", s.ID(), status.ExitCode(), errors.Join(err, status.Error()))
	}
	return s.stdout.String()
}

// execInput runs a command with an input that ends, and returns its output; its exit status must be 0.
func (c *container) execInput(input string, command ...string) string {
	c.p.h.t.Helper()
	task, closeClient := c.task()
	defer closeClient()
	stdin := &ending{Reader: strings.NewReader(input), ended: make(chan struct{})}
	s := c.begin(task, "input", stdin, func(p *specs.Process) { p.Args = command })
	<-stdin.ended
	if err := s.CloseIO(c.p.h.ctx, containerd.WithStdinCloser); err != nil {
		c.p.h.t.Error(err)
	}
	return s.ended()
}

// ending is a reader that tells when it has been read to its end.
type ending struct {
	io.Reader
	ended chan struct{}
}

func (e *ending) Read(buffer []byte) (int, error) {
	n, err := e.Reader.Read(buffer)
	if errors.Is(err, io.EOF) {
		close(e.ended)
	}
	return n, err
}

// A client says that a session's input ends, and closes its own end of it later. Kata's Go shim waits for that with its lock held;
// through Metsuke only the one who closes waits.
func TestCloseIOBeforeTheWriterIsDone(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		c, other := p.idle(), p.run(stand.ContainerConfig{Name: "other", Command: []string{"workload", "pause"}})
		task, closeClient := c.task()
		defer closeClient()
		input, writer := io.Pipe()            // while it is open, the client has the FIFO open for writing
		defer func() { _ = writer.Close() }() // else what fails here would hang
		s := c.begin(task, "input", input, func(p *specs.Process) { p.Args = []string{"cat"} })
		if _, err := io.WriteString(writer, "first\n"); err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() { closed <- s.CloseIO(h.ctx, containerd.WithStdinCloser) }()

		// The request is on its way or waits: whichever, nobody else does.
		for i := range 3 {
			if status, err := task.Status(h.ctx); err != nil || status.Status != containerd.Running {
				t.Errorf("the container is %s, %v", status.Status, err)
			}
			for name, c := range map[string]*container{"the same": c, "another": other} {
				if out := c.exec("echo", "fine"); out != "fine\n" {
					t.Errorf("turn %d: an exec in %s container wrote %q", i, name, out)
				}
			}
		}

		if _, err := io.WriteString(writer, "second\n"); err != nil {
			t.Fatal(err)
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if out := s.ended(); out != "first\nsecond\n" {
			t.Errorf("the session wrote %q", out)
		}
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

// A process of an exec session is as it was asked for, also where a delegate drops that on the way (Kata's does). But runc has no OOM
// score of an exec's own: it gets the container's (libcontainer/process_linux.go, setnsProcess).
func TestExecIsAsAsked(t *testing.T) {
	few := []string{"CAP_CHOWN", "CAP_KILL"}
	const fewMask = "0000000000000021"
	type session struct {
		caps   *specs.LinuxCapabilities // nil: the container's
		nnp    bool                     // asked for
		inNNP  string                   // in force
		files  uint64
		adjust int
	}
	eachVersion(t, func(t *testing.T, h *harness) {
		for profile, sessions := range map[string][]session{
			"tuned":    {{&specs.LinuxCapabilities{Bounding: few, Permitted: few, Effective: few}, false, "1", 777, 321}},
			"inherits": {{&specs.LinuxCapabilities{Bounding: few, Permitted: few, Effective: few}, true, "1", 777, 321}, {nil, false, "0", 333, 999}},
		} {
			p := h.pod(stand.PodConfig{Handler: tuned, Annotations: map[string]string{"metsuke.dev/profile": profile}})
			c := p.idle()
			task, closeClient := c.task()
			defer closeClient()
			first := statusOf(c.exec("sh", "-c", "cat /proc/1/status; echo adjust: $(cat /proc/1/oom_score_adj)"))
			for i, asked := range sessions {
				s := c.begin(task, fmt.Sprint("session-", i), nil, func(p *specs.Process) {
					p.Args = []string{"sh", "-c", "cat /proc/self/status; echo files: $(ulimit -Sn) $(ulimit -Hn); echo adjust: $(cat /proc/self/oom_score_adj)"}
					p.NoNewPrivileges, p.OOMScoreAdj = asked.nnp, &asked.adjust
					p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: asked.files - 1, Hard: asked.files}}
					if asked.caps != nil {
						p.Capabilities = asked.caps
					}
				})
				got := statusOf(s.ended())
				want := map[string]string{
					"Seccomp": "2", "NoNewPrivs": asked.inNNP, "CapInh": first["CapInh"], "CapAmb": first["CapAmb"],
					"CapBnd": first["CapBnd"], "CapEff": first["CapEff"], "CapPrm": first["CapPrm"],
					"files": fmt.Sprint(asked.files-1, " ", asked.files), "adjust": fmt.Sprint(asked.adjust),
				}
				if asked.caps != nil {
					want["CapBnd"], want["CapEff"], want["CapPrm"] = fewMask, fewMask, fewMask
				}
				if delegate == stand.Runc {
					want["adjust"] = first["adjust"]
				}
				for name, value := range want {
					if got[name] != value {
						t.Errorf("%s, session %d: %s is %q, want %q", profile, i, name, got[name], value)
					}
				}
			}
		}
	})
}

// statusOf are the lines of /proc/PID/status, and others of that form.
func statusOf(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}
