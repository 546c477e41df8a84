// SPDX-License-Identifier: Apache-2.0

// Package rendezvous is the supervisor's side of the handshake with launchers: one socket for each
// container, at which the container's init and its exec sessions fetch their plan and hand over
// their seccomp listener before they become the workload.
//
// The socket can be reached by the workload, which is hostile: it may connect at any time, hold
// connections, send garbage, read a launcher's token from /proc and race it to the socket. So a
// connection is believed only if it presents the token of an expected launch AND its peer is the
// process that the delegate says it started (SO_PEERCRED, with a pidfd against reuse of the pid)
// AND that process runs the helper's executable. The token alone is a name, not a secret. What a
// peer sends is bounded in size, in time, and in number of connections; the worst that it gains is
// that an exec session of its own container fails to start.
//
//	r, _ := rendezvous.Listen(path)
//	p, _ := r.Expect(rendezvous.Spec{Token: token, Plan: plan})
//	p.Confirm(pid)           // as soon as the delegate has told the pid
//	l, err := p.Await(ctx)   // the launcher stands still under its filter; l.Listener is ours
//	...                      // serve l.Listener, read back what is in force
//	err = l.Arm(ctx)         // nil: it is the workload now
//
// A supervisor in the container itself is told no pid, and may hear of a launch when the launcher is there already:
// see [ListenInside].
package rendezvous

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
)

const (
	// maxStrangers bounds the connections that have not presented a token yet. A launcher sends
	// its token at once, so under a flood the oldest stranger is the one to drop.
	maxStrangers = 32
	// maxPerPeer bounds the strangers of one process; a launcher has one.
	maxPerPeer = 2
	// maxCandidates bounds the connections that present the token of one launch: the launcher,
	// and workload processes that read the token from its command line.
	maxCandidates = 4
	// helloTimeout bounds the time to the token; long, as the container may have little CPU.
	helloTimeout = 10 * time.Second
	// acceptBackoff is the pause after a failed accept (out of descriptors or of memory).
	acceptBackoff = 20 * time.Millisecond
)

// Errors that callers tell apart.
var (
	// ErrClosed is returned once the Rendezvous is closed.
	ErrClosed = errors.New("rendezvous is closed")
	// ErrCanceled is returned by Await after Cancel.
	ErrCanceled = errors.New("launch was canceled")
	// ErrDied means that the launcher ended without a word: it was killed, or crashed.
	ErrDied = errors.New("launcher ended before it became the workload")
)

// NewToken returns a new token: 160 random bits as 32 letters and digits.
func NewToken() string {
	var b [20]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base32.StdEncoding.EncodeToString(b[:])
}

// Rendezvous is the socket of one container. Its methods may be called concurrently.
type Rendezvous struct {
	ln   *net.UnixListener
	path string
	wg   sync.WaitGroup

	inside bool // see ListenInside
	helper FileID

	mu        sync.Mutex
	expected  *sync.Cond // of mu: a launch was registered, an early launcher's time is up, or closed
	closed    bool       // guarded by mu
	pending   []*Pending // guarded by mu
	strangers []*peer    // guarded by mu; oldest first
}

// Listen makes the socket at path, mode 0666 so that a container's user of any id can connect, and
// begins to accept. A stale socket at path is replaced. The directory is the caller's, which keeps
// everyone but root and the container out of it. path may be longer than a socket address holds.
func Listen(path string) (*Rendezvous, error) { return start(&Rendezvous{path: path}) }

// ListenInside is Listen for a supervisor in the container itself. There the launcher is whoever presents the token,
// runs the helper, and stands under no seccomp filter: all that descends from a workload stands under that workload's, so
// the workload can read the token and run the helper, and is refused all the same. So nobody need Confirm; and such a
// process may connect first and have its launch expected up to plan.MaxWait seconds later.
func ListenInside(path string, helper FileID) (*Rendezvous, error) {
	return start(&Rendezvous{path: path, inside: true, helper: helper})
}

func start(r *Rendezvous) (*Rendezvous, error) {
	r.expected = sync.NewCond(&r.mu)
	var err error
	if r.ln, err = listen(r.path); err != nil {
		return nil, fmt.Errorf("rendezvous socket %s: %w", r.path, err)
	}
	r.wg.Add(1)
	go r.accept()
	return r, nil
}

func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// A socket address holds 107 bytes and containerd's bundle paths are longer: bind by way of
	// the directory's descriptor.
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // short names nothing by then
	if err := os.Chmod(short, 0o666); err != nil {
		return nil, errors.Join(err, ln.Close(), os.Remove(path))
	}
	return ln, nil
}

// Close removes the socket, ends every launch that Await has not returned yet with ErrClosed, and
// waits until nothing of the Rendezvous runs any more. Launches that Await returned stay whole.
func (r *Rendezvous) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	for _, p := range slices.Clone(r.pending) {
		p.end(ErrClosed)
	}
	for _, s := range r.strangers {
		s.conn.Close()
	}
	r.expected.Broadcast()
	r.mu.Unlock()
	err := errors.Join(r.ln.Close(), os.Remove(r.path))
	r.wg.Wait()
	return err
}

// Expect registers a launch. From now on a connection that presents the token gets the plan.
// The caller ends it by Await or Cancel.
func (r *Rendezvous) Expect(spec Spec) (*Pending, error) {
	frame, err := spec.Plan.Append(nil)
	if err != nil {
		return nil, fmt.Errorf("expect a launcher: %w", err)
	}
	if _, err := (plan.Hello{Token: spec.Token}).Append(nil); err != nil {
		return nil, fmt.Errorf("expect a launcher: token: %w", err)
	}
	p := &Pending{r: r, spec: spec, frame: frame, changed: make(chan struct{}, 1)}
	p.spec.Plan = nil // the frame holds it
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.find(spec.Token) != nil {
		return nil, errors.New("expect a launcher: token is in use")
	}
	r.pending = append(r.pending, p)
	r.expected.Broadcast()
	return p, nil
}

// find returns the pending launch that token names. The caller holds r.mu.
func (r *Rendezvous) find(token string) *Pending {
	var found *Pending
	for _, p := range r.pending {
		if subtle.ConstantTimeCompare([]byte(p.spec.Token), []byte(token)) == 1 {
			found = p
		}
	}
	return found
}

// accept takes connections in until the listener is closed.
func (r *Rendezvous) accept() {
	defer r.wg.Done()
	for {
		conn, err := r.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptBackoff)
			continue
		}
		s, err := newPeer(conn)
		if err != nil {
			conn.Close() // not of our pid namespace, or gone already
			continue
		}
		// So a workload inside cannot crowd launchers out, nor have its executable looked at, which can take as
		// long as it likes (FUSE).
		if r.inside && !s.unfiltered() || !r.admit(s) {
			s.close()
			continue
		}
		go r.serve(s)
	}
}

// admit makes s a stranger, and makes room for it if need be. It reports false if s has to go.
func (r *Rendezvous) admit(s *peer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	same := 0
	for _, o := range r.strangers {
		if o.pid == s.pid {
			same++
		}
	}
	if same >= maxPerPeer {
		return false
	}
	if len(r.strangers) >= maxStrangers {
		// A process that the delegate has named is no stranger.
		i := slices.IndexFunc(r.strangers, func(o *peer) bool { return !r.named(o.pid) })
		if i < 0 {
			return false
		}
		r.strangers[i].conn.Close() // its goroutine does the rest
		r.strangers = slices.Delete(r.strangers, i, i+1)
	}
	r.strangers = append(r.strangers, s)
	r.wg.Add(1)
	return true
}

// named says whether a pending launch is known to have this pid. The caller holds r.mu.
func (r *Rendezvous) named(pid int) bool {
	return slices.ContainsFunc(r.pending, func(p *Pending) bool { return p.pid == pid })
}

// serve speaks with one peer until its listener or its failure is there, or it is refused.
func (r *Rendezvous) serve(s *peer) {
	defer r.wg.Done()
	s.conn.SetDeadline(time.Now().Add(helloTimeout)) //nolint:errcheck // fails only if closed
	var p *Pending
	if token, err := s.readHello(); err == nil {
		p = r.identify(s, token)
	}
	frame := r.admitTo(p, s)
	if frame == nil {
		s.close()
		return
	}
	s.conn.SetDeadline(time.Now().Add(helloTimeout)) //nolint:errcheck // fails only if closed
	var o outcome
	if _, err := s.conn.Write(frame); err != nil {
		o.err = ErrDied
	} else {
		// From here on the launch's own deadline holds: the end of the launch closes the connection.
		s.conn.SetDeadline(time.Time{}) //nolint:errcheck // fails only if closed
		o = s.readOutcome(p.spec.Exec)
	}
	if told, ok := errors.AsType[*ExecError](o.err); ok && p.spec.Failed != nil {
		p.spec.Failed(told)
	}
	p.settle(s, o)
}

// identify returns the launch that a stranger's token names, if the stranger may be its launcher; else nil.
func (r *Rendezvous) identify(s *peer, token string) *Pending {
	if r.inside {
		return r.identifyInside(s, token)
	}
	r.mu.Lock()
	p := r.find(token)
	r.mu.Unlock()
	if p == nil || !s.runs(p.spec.Helper) {
		return nil
	}
	return p
}

// identifyInside does so for a supervisor in the container, and waits for the launch to be expected.
func (r *Rendezvous) identifyInside(s *peer, token string) *Pending {
	process := s.launcher(r.helper)
	if process == nil {
		return nil
	}
	timer := time.AfterFunc(plan.MaxWait*time.Second, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.expired = true
		r.expected.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.find(token)
	for p == nil && !r.closed && !s.expired {
		r.expected.Wait()
		p = r.find(token)
	}
	if p == nil {
		process.Close()
		return nil
	}
	if p.confirm(s.pid, process) != nil {
		return nil
	}
	return p
}

// admitTo makes a stranger a candidate of p, if that is not nil and has room, and returns the plan that it gets. It is no
// stranger any more. nil means that it is to be dropped.
func (r *Rendezvous) admitTo(p *Pending, s *peer) (frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.strangers = slices.DeleteFunc(r.strangers, func(o *peer) bool { return o == s })
	switch {
	case p == nil, p.ended, p.pid != 0 && p.pid != s.pid, len(p.candidates) >= maxCandidates,
		slices.ContainsFunc(p.candidates, func(c *candidate) bool { return c.peer.pid == s.pid }):
		return nil
	}
	p.candidates = append(p.candidates, &candidate{peer: s})
	return p.frame
}

// readFull reads len(b) bytes and no more. It takes no descriptors: the kernel drops those sent.
func (s *peer) readFull(b []byte) error {
	_, err := io.ReadFull(s.conn, b)
	return err
}
