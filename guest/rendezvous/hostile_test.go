// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/launchtest"
)

// handOver plays a launcher that does all right, and fails the test if that does not succeed.
func handOver(t testing.TB, path string, p *Pending, token string) {
	t.Helper()
	c := dial(t, path)
	c.hello(token)
	c.plan()
	c.listener(listenerFrame, int(launchtest.NewListener(t).Fd()))
	if err := p.Confirm(self); err != nil {
		t.Fatal(err)
	}
	l, err := p.Await(deadline(t))
	if err != nil {
		t.Fatalf("an honest launcher is refused: %v", err)
	}
	l.Listener.Close()
	l.Close()
}

func TestStrangersAreHungUpOn(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	hello := helloFrame(t, token)
	for name, data := range map[string][]byte{
		"wrong token":      helloFrame(t, NewToken()),
		"half the token":   helloFrame(t, token[:16]),
		"more than it":     helloFrame(t, token+"A"),
		"garbage":          bytes.Repeat([]byte("garbage"), 1000),
		"zeros":            make([]byte, 100),
		"armed":            plan.AppendHeader(nil, plan.TypeArmed, 0),
		"listener":         listenerFrame,
		"token of 4 GiB":   {'M', 'T', plan.Version, byte(plan.TypeHello), 255, 255, 255, 255},
		"another protocol": []byte("GET / HTTP/1.1\r\n\r\n"),
		"another version":  append([]byte{'M', 'T', plan.Version + 1}, hello[3:]...),
	} {
		c := dial(t, path)
		c.conn.Write(data) //nolint:errcheck // hung up on before the end
		t.Run(name, func(t *testing.T) { c.refused() })
	}
	handOver(t, path, p, token)
	c := dial(t, path)
	c.hello(token)
	t.Run("replayed token", func(t *testing.T) { c.refused() })
}

func TestHalfATokenIsHungUpOnInTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	hello := helloFrame(t, token)
	begin := time.Now()
	slow := dial(t, path)
	for _, b := range hello[:20] { // a byte at a time, and never the last
		slow.write([]byte{b})
		time.Sleep(5 * time.Millisecond)
	}
	handOver(t, path, p, token) // is not held up by it
	slow.refused()
	if took := time.Since(begin); took < helloTimeout {
		t.Errorf("hung up on after %v, want %v", took, helloTimeout)
	}
}

// TestImpostorWithTheToken is a workload process that has read the token from the launcher's
// command line and is faster than the launcher.
func TestImpostorWithTheToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)

	t.Run("before the pid is known", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		other := connect(t, path)
		if answer := other.send(t, helloFrame(t, token)); answer == "eof" {
			t.Fatal("not a candidate: nothing is tested")
		}
		handOver(t, path, p, token)
		if answer := other.send(t, nil); answer != "eof" {
			t.Errorf("the impostor is not hung up on, it reads %s bytes", answer)
		}
	})
	t.Run("with a false failure", func(t *testing.T) {
		p, token := expect(t, r)
		other := connect(t, path)
		other.send(t, helloFrame(t, token))
		other.post(plan.Failure{Stage: plan.StageNotFound}.Append(nil))
		time.Sleep(20 * time.Millisecond)
		handOver(t, path, p, token)
	})
	t.Run("after the pid is known", func(t *testing.T) {
		p, token := expect(t, r)
		if err := p.Confirm(self); err != nil {
			t.Fatal(err)
		}
		if answer := connect(t, path).send(t, helloFrame(t, token)); answer != "eof" {
			t.Errorf("the impostor gets %s bytes of the plan", answer)
		}
		handOver(t, path, p, token)
	})
	t.Run("many that come and go", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		for range 2 * maxCandidates {
			other := connect(t, path)
			other.send(t, helloFrame(t, token))
			other.end()
		}
		eventually(t, r, "their places are free", func() bool { return len(p.candidates) == 0 })
		handOver(t, path, p, token)
	})
	t.Run("alone", func(t *testing.T) {
		p, token := expect(t, r)
		other := connect(t, path)
		other.send(t, helloFrame(t, token))
		if err := p.Confirm(self); err != nil {
			t.Fatal(err)
		}
		if l, err := p.Await(soon(t)); err == nil {
			t.Errorf("process %d is taken for %d", other.cmd.Process.Pid, l.PID)
		}
	})
}

// TestReusedPid has a connection whose process is gone while its pid is what the delegate tells.
func TestReusedPid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	other := connect(t, path)
	other.send(t, helloFrame(t, token))
	// As if it had handed a listener over: the connection is kept open by another process then.
	r.mu.Lock()
	c := p.candidates[0]
	c.outcome = &outcome{listener: launchtest.NewListener(t)}
	r.mu.Unlock()
	other.end()
	if err := p.Confirm(other.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Await(deadline(t)); !errors.Is(err, ErrDied) {
		t.Errorf("Await: %v, want %v", err, ErrDied)
	}
}

func TestHelperIsTheOnlyExecutable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	exe, err := IdentifyFile(exePath(self))
	if err != nil {
		t.Fatal(err)
	}
	other, err := IdentifyFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id FileID
		ok bool
	}{{exe, true}, {FileID{}, true}, {other, false}, {FileID{Dev: exe.Dev, Ino: exe.Ino + 1}, false}, {FileID{Dev: exe.Dev + 1, Ino: exe.Ino}, false}} {
		token := NewToken()
		p, err := r.Expect(Spec{Token: token, Plan: testPlan, Helper: test.id})
		if err != nil {
			t.Fatal(err)
		}
		if test.ok {
			handOver(t, path, p, token)
			continue
		}
		c := dial(t, path)
		c.hello(token)
		c.refused()
		p.Cancel()
	}
	if _, err := IdentifyFile("/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("IdentifyFile: %v", err)
	}
}

// TestBadListener has the right process send the wrong thing instead of its listener.
func TestBadListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	good := int(launchtest.NewListener(t).Fd())
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	bad := int(null.Fd())
	header := func(typ plan.Type, size int) []byte { return plan.AppendHeader(nil, typ, size) }
	for name, send := range map[string]func(c *client){
		"no descriptor":              func(c *client) { c.write(listenerFrame) },
		"another descriptor":         func(c *client) { c.listener(listenerFrame, bad) },
		"two":                        func(c *client) { c.listener(listenerFrame, good, good) },
		"many":                       func(c *client) { c.listener(listenerFrame, bytesOf(good, 250)...) },
		"one a byte":                 func(c *client) { c.listener(listenerFrame[:1], good); c.listener(listenerFrame[1:], good) },
		"with a failure":             func(c *client) { c.listener(plan.Failure{Stage: 99}.Append(nil), good) },
		"number of another":          func(c *client) { c.write(plan.AppendListenerAt(nil, bad)) },
		"number of none":             func(c *client) { c.write(plan.AppendListenerAt(nil, 1<<20)) },
		"number out of bounds":       func(c *client) { c.write(append(header(plan.TypeListenerAt, 4), 255, 255, 255, 255)) },
		"number and descriptor":      func(c *client) { c.listener(plan.AppendListenerAt(nil, good), good) },
		"hello":                      func(c *client) { c.write(helloFrame(t, "token")) },
		"plan":                       func(c *client) { c.write(header(plan.TypePlan, 100)) },
		"failure of no known stage":  func(c *client) { c.write(plan.Failure{Stage: 200}.Append(nil)) },
		"failure longer than it is":  func(c *client) { c.write(append(header(plan.TypeFailure, 8), 1, 0, 0, 0, 0, 0, 0, 0)) },
		"failure of 4 GiB":           func(c *client) { c.write(header(plan.TypeFailure, -1)) },
		"garbage":                    func(c *client) { c.write(make([]byte, 1000)) },
		"descriptor with the header": func(c *client) { c.listener(header(plan.TypeFailure, 7), good); c.write(make([]byte, 7)) },
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			p, token := expect(t, r)
			if err := p.Confirm(self); err != nil {
				t.Fatal(err)
			}
			c := dial(t, path)
			c.hello(token)
			c.plan()
			send(c)
			if l, err := p.Await(deadline(t)); !errors.Is(err, errProtocol) {
				t.Errorf("Await: %v, %v; want %v", l, err, errProtocol)
			}
			c.conn.Close()
		})
	}
}

func bytesOf(fd, n int) (fds []int) {
	for range n {
		fds = append(fds, fd)
	}
	return fds
}

// TestDescriptorsAreNotCollected sends descriptors where none belong: they must not stay open.
func TestDescriptorsAreNotCollected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	checkLeaks(t)
	c := dial(t, path)
	hello := helloFrame(t, token)
	for i := range hello {
		c.listener(hello[i:i+1], bytesOf(int(launchtest.NewListener(t).Fd()), 100)...)
	}
	c.plan()
	p.Cancel()
	c.refused()
	c.conn.Close()
}

// TestFlood has processes that connect as fast as they can and hold on, while launches go on.
func TestFlood(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	var others []*process
	for range maxStrangers + 4 { // each holds one connection that says nothing
		others = append(others, connect(t, path))
	}
	p, token := expect(t, r)
	handOver(t, path, p, token)

	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	for range 4 {
		wg.Go(func() {
			var held []net.Conn
			for {
				select {
				case <-done:
					for _, c := range held {
						c.Close()
					}
					return
				default:
				}
				c, err := net.Dial("unix", path)
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				if held = append(held, c); len(held) > 50 {
					held[0].Close()
					held = held[1:]
				}
			}
		})
	}
	for range 20 {
		// The flood is this process's own, and so would be the launcher, whose share is bounded: let
		// another process be the launcher.
		p, token := expect(t, r)
		other := connect(t, path)
		if err := p.Confirm(other.cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if answer := other.send(t, helloFrame(t, token)); answer == "eof" {
			t.Error("the launcher gets no plan while others flood the socket")
		}
		p.Cancel()
		other.end()
	}
	r.mu.Lock()
	if n := len(r.strangers); n > maxStrangers {
		t.Errorf("%d strangers are held, want at most %d", n, maxStrangers)
	}
	r.mu.Unlock()
	for _, o := range others {
		o.end()
	}
}

// TestPlanThatNobodyReads has a peer that presents the token and reads nothing.
func TestPlanThatNobodyReads(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	big := &plan.Plan{Filter: bytes.Repeat(plan.AppendInsn(nil, 6, 0, 0, 0), plan.MaxInsns)}
	for i := range 16 {
		big.Env = append(big.Env, plan.EnvVar{Index: i, Var: "A=" + string(bytes.Repeat([]byte("x"), 16000))})
	}
	token := NewToken()
	p, err := r.Expect(Spec{Token: token, Plan: big})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	if err := c.conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	c.hello(token)
	time.Sleep(50 * time.Millisecond)
	p.Cancel()
}

// TestNoise connects with random bytes, cut at random places.
func TestNoise(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	rng := rand.New(rand.NewPCG(1, 2))
	good := append(helloFrame(t, token), listenerFrame...)
	for range 300 {
		c := dial(t, path)
		data := bytes.Clone(good)
		for range rng.IntN(4) {
			data[rng.IntN(len(data))] ^= byte(1 << rng.IntN(8))
		}
		c.conn.Write(data[:rng.IntN(len(data)+1)]) //nolint:errcheck // hung up on before the end
		c.conn.Close()
	}
	// Connections are taken in one after the other. With this one all are, and their places are free when they are seen to be closed.
	last := dial(t, path)
	last.conn.Write(helloFrame(t, NewToken())) //nolint:errcheck // hung up on before, if this process has too many
	last.refused()
	eventually(t, r, "nobody is there any more", func() bool { return len(r.strangers) == 0 && len(p.candidates) == 0 })
	handOver(t, path, p, token)
}
