// SPDX-License-Identifier: Apache-2.0

// Package resident is the supervisor's process inside a container, for delegates whose containers have a kernel of their
// own. The host starts it as one more process of the container, unseen by users, and speaks with it over its stdin and
// stdout (guest/channel). It has its own socket for launchers (guest/rendezvous), serves their listeners
// (guest/supervisor), and sends each event to the host, which keeps the stream.
//
// It shares the container with the workload, which is hostile and may be of the same user. Before any of the workload's
// code runs, everything that the workload could take away is in place: /proc is open, the cgroup's files are open and
// hidden, its directory is read-only, and all its threads exist. What the workload can still do is to kill or to stop
// it. Then the kernel refuses, or holds up, what would be unwatched, and the host sees to the rest.
//
// A container has one resident. It ends with the channel: at Stop, at the end of stdin, at anything on stdin that is not
// the host's, and at any trouble of its own. All listeners close with it, so that audited and denied calls fail with ENOSYS.
package resident

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/cgroups/inside"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/version"
)

// Exit statuses.
const (
	exitDied  = 1   // Fatal says why
	exitUsage = 125 // there was no Start: nobody to tell but stderr
)

// exe is the file that we run, which is the helper.
const exe = "/proc/self/exe"

// dirMode are the permissions of the private directory where the resident is to make its socket in it.
const dirMode = 0o755

// lastWord bounds the attempt to say why we die, to a host that may not listen.
const lastWord = time.Second

// resident is the one of this process.
type resident struct {
	dir   private.Name // as the host calls the helper
	out   *channel.Sender
	sink  *sink
	sup   *supervisor.Supervisor
	meet  *rendezvous.Rendezvous
	group *inside.Cgroup // nil: the delegate applies all limits
	watch []string       // files of group to read back

	controls chan channel.Control
	launches launches
	killOnce sync.Once // KillInit was sent
}

// Main is the verb audit. It never returns.
func Main() {
	if err := harden(); err != nil {
		usage(err)
	}
	start, in, err := channel.ReceiveStart(pollable(0, "stdin"))
	if err != nil {
		usage(fmt.Errorf("read what to do from stdin: %w", err))
	}
	stdout := pollable(1, "stdout")
	r := &resident{dir: private.Name(path.Dir(os.Args[0])), out: channel.NewSender(stdout, start.Secret, channel.GuestToHost)}
	growPipe(1)
	ready, err := r.prepare(&start)
	if err == nil {
		err = r.out.Send(ready)
	}
	if err == nil {
		start = channel.Start{} // the program's bytes are not needed any more
		err = r.serve(in)
	}
	if err != nil {
		r.die(err)
	}
	os.Exit(0)
}

// usage ends a process that nobody has started properly.
func usage(err error) {
	fmt.Fprintln(os.Stderr, "metsuke-guest: audit:", err)
	os.Exit(exitUsage)
}

// die says why, and ends the process.
func (r *resident) die(err error) {
	time.AfterFunc(lastWord, func() { os.Exit(exitDied) })
	_ = r.out.Send(channel.Fatal{Text: err.Error()}) // there is nobody else to tell
	os.Exit(exitDied)
}

// prepare puts in place what must be there before the workload runs.
func (r *resident) prepare(start *channel.Start) (ready channel.Ready, err error) {
	program, err := seccomp.UnmarshalProgram(start.Program)
	if err != nil {
		return ready, err
	}
	r.sink = newSink(r.tell, start.Ordered, int(start.Credit))
	r.sup, err = supervisor.New(supervisor.Options{
		Program: program, Sink: r.sink, Continue: start.Continue,
		StallTimeout: math.MaxInt64, // the host has the stream, and waits or gives it up for us
		KillInit:     r.killInit, OnLoss: r.lost,
	})
	if err != nil {
		return ready, err
	}
	if err := checkProc(); err != nil {
		return ready, err
	}
	if err := r.takeCgroup(start); err != nil {
		return ready, err
	}
	helper, err := rendezvous.IdentifyFile(exe)
	if err != nil {
		return ready, err
	}
	r.meet, err = rendezvous.ListenInside(r.dir.SocketPath(), helper)
	if err != nil {
		return ready, err
	}
	if err := r.dir.Seal(); err != nil {
		return ready, err
	}
	if err := r.dir.Check("/", exe, dirMode); err != nil {
		return ready, err
	}
	if err := lowerCaps(); err != nil {
		return ready, err
	}
	r.controls = make(chan channel.Control, pendingControls)
	go r.control()
	tasks, err := makeThreads()
	if err != nil {
		return ready, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ready, fmt.Errorf("uname: %w", err)
	}
	return channel.Ready{Version: version.String(), Kernel: unix.ByteSliceToString(u.Release[:]), Tasks: uint32(tasks)}, nil
}

// serve does what the host asks for, until it asks for the end (nil) or cannot be followed any more.
func (r *resident) serve(in *channel.Receiver) error {
	for {
		m, err := in.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case channel.Ack:
			if err := r.sink.acknowledge(m.Seq); err != nil {
				return err
			}
		case channel.Expect:
			r.expect(m)
		case channel.Cancel:
			r.launches.cancel(m.ID)
		case channel.Arm:
			r.launches.arm(m.ID)
		case channel.Control:
			r.controls <- m
		case channel.Stop:
			r.sink.stop() // what waits for the host's word is not to
			err := r.sup.Close()
			r.sink.flush()
			return err
		default:
			return fmt.Errorf("the host sends a %T, which it may not", m)
		}
	}
}

// killInit is called for each call of the container's first process that a rule kills.
func (r *resident) killInit() {
	r.killOnce.Do(func() { r.tell(channel.KillInit{}) })
}

// lost is called when the supervisor cannot go on serving somebody.
func (r *resident) lost(l audit.Loss) {
	if l.OnLoss == "continue" {
		return // the stream has the record
	}
	r.die(errors.New(l.Reason + ": " + l.Detail))
}

// tell sends a message to the host, without whom there is no going on.
func (r *resident) tell(m channel.Message) {
	if err := r.out.Send(m); err != nil {
		r.die(err)
	}
}

// pollable makes a standard descriptor a file whose reads and writes take no thread while they wait.
func pollable(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true) // else they take one
	return os.NewFile(uintptr(fd), name)
}

// growPipe makes room for what may be unacknowledged, so that sending hardly ever waits. As far as we may.
func growPipe(fd uintptr) {
	const most = 1 << 20 // what /proc/sys/fs/pipe-max-size is by default
	_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, most)
}
