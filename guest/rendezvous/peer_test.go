// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/launchtest"
)

// TestMain makes the test binary a process that connects, if it is told so: impostors need a pid
// that is not the test's.
func TestMain(m *testing.M) {
	if path := os.Getenv("METSUKE_TEST_CONNECT"); path != "" {
		if os.Getenv("METSUKE_TEST_FILTER") != "" {
			if err := launchtest.FilterSelf(); err != nil {
				fmt.Println(err)
				return
			}
		}
		impostor(path)
		return
	}
	os.Exit(m.Run())
}

// impostor connects, sends what stdin says in hexadecimal, a line at a time, and answers each line
// with what it reads: "eof", or the number of bytes.
func impostor(path string) {
	conn, err := net.Dial("unix", path)
	for errors.Is(err, unix.EAGAIN) { // the queue is full; a launcher's connect waits
		conn, err = net.Dial("unix", path)
	}
	if err != nil {
		fmt.Println("dial:", err)
		return
	}
	fmt.Println("connected")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		data, err := hex.DecodeString(in.Text())
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := conn.Write(data); err != nil {
			fmt.Println("eof")
			continue
		}
		n, err := conn.Read(make([]byte, 1<<20))
		if err != nil {
			fmt.Println("eof")
			continue
		}
		fmt.Println(n)
	}
}

// patience is what a step takes at the very most, on a machine that is busy with other tests.
const patience = 2 * time.Minute

// process is a running impostor.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader

	ending sync.Once
}

// connect starts a process that connects to path. env is added to its environment.
func connect(t testing.TB, path string, env ...string) *process {
	t.Helper()
	return connectAs(t, path, nil, env...)
}

// connectAs is connect as another user.
func connectAs(t testing.TB, path string, user *syscall.Credential, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("/proc/self/exe")}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	p.cmd.Env = append(append(os.Environ(), "METSUKE_TEST_CONNECT="+path), env...)
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	if line := p.line(t); line != "connected" {
		t.Fatalf("impostor: %s", line)
	}
	return p
}

// end kills the process, and returns when it is gone. A timer may do so while the test ends.
func (p *process) end() {
	p.ending.Do(func() {
		p.in.Close()
		p.cmd.Process.Kill() // or ended already
		p.cmd.Wait()         //nolint:errcheck // killed
	})
}

func (p *process) line(t testing.TB) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("impostor: %v", err)
	}
	return strings.TrimSpace(line)
}

// send sends data and returns what came back: "eof" or a number of bytes.
func (p *process) send(t testing.TB, data []byte) string {
	t.Helper()
	p.post(data)
	return p.line(t)
}

// post sends data and does not wait for an answer.
func (p *process) post(data []byte) {
	fmt.Fprintf(p.in, "%x\n", data)
}

// client is a launcher's side of a connection, in this process.
type client struct {
	t    testing.TB
	conn *net.UnixConn
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn}
}

// hello presents a token.
func (c *client) hello(token string) {
	c.t.Helper()
	c.write(helloFrame(c.t, token))
}

func helloFrame(t testing.TB, token string) []byte {
	t.Helper()
	frame, err := plan.Hello{Token: token}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// plan reads the plan.
func (c *client) plan() *plan.Plan {
	c.t.Helper()
	body := c.frame(plan.TypePlan)
	p, err := plan.DecodePlan(body)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// frame reads a frame of a type.
func (c *client) frame(want plan.Type) []byte {
	c.t.Helper()
	head := make([]byte, plan.HeaderSize)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		c.t.Fatalf("read a frame of type %d: %v", want, err)
	}
	typ, n, err := plan.ParseHeader(head)
	if err != nil || typ != want {
		c.t.Fatalf("frame of type %d, %v, want %d", typ, err, want)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		c.t.Fatal(err)
	}
	return body
}

// listener sends a frame with descriptors.
func (c *client) listener(frame []byte, fds ...int) {
	c.t.Helper()
	if _, _, err := c.conn.WriteMsgUnix(frame, unix.UnixRights(fds...), nil); err != nil {
		c.t.Fatal(err)
	}
}

// refused waits until the other side hangs up without a word.
func (c *client) refused() {
	c.t.Helper()
	if n, err := c.conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("not hung up on: read %d bytes, %v", n, err)
	}
}

// checkLeaks fails the test if there are more goroutines or descriptors at its end, once all other
// clean-up is done, than at its beginning. It must be called first.
func checkLeaks(t testing.TB) {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		var now []string
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			now = openFiles(t)
			if runtime.NumGoroutine() <= goroutines && len(now) <= len(fds) {
				return
			}
			if time.Now().After(end) {
				break
			}
		}
		stacks := make([]byte, 1<<16)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Errorf("%d goroutines and descriptors %q, but %d and %q at the beginning\n%s",
			runtime.NumGoroutine(), now, goroutines, fds, stacks)
	})
}

// openFiles lists the descriptors that could be ours: the runtime's own come and go.
func openFiles(t testing.TB) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasSuffix(link, "/fd") && !strings.Contains(link, "eventpoll") && !strings.Contains(link, "eventfd") {
			open = append(open, e.Name()+" "+link)
		}
	}
	slices.Sort(open)
	return open
}

var testPlan = &plan.Plan{Filter: launchtest.NotifyFilter(), NoNewPrivs: true}

// listenAt makes a Rendezvous for a test.
func listenAt(t testing.TB, path string) *Rendezvous {
	t.Helper()
	r, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// expect registers a launch.
func expect(t testing.TB, r *Rendezvous) (*Pending, string) {
	t.Helper()
	token := NewToken()
	p, err := r.Expect(Spec{Token: token, Plan: testPlan})
	if err != nil {
		t.Fatal(err)
	}
	return p, token
}

// eventually waits for what the Rendezvous comes to by itself. ok is called with r.mu held.
func eventually(t testing.TB, r *Rendezvous, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		yes := ok()
		r.mu.Unlock()
		if yes {
			return
		}
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

var self = os.Getpid()

// exePath is this test's executable.
func exePath(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/exe" }
