// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/parity/probe"
)

// TestTerminal compares processes that have a terminal, and control it.
func TestTerminal(t *testing.T) {
	for name, edit := range map[string]func(*specs.Spec){
		"root": func(*specs.Spec) {},
		"user": func(s *specs.Spec) { s.Process.User.UID, s.Process.User.GID = 1000, 1000 },
		"user, no_new_privs": func(s *specs.Spec) {
			s.Process.User.UID, s.Process.NoNewPrivileges = 1000, true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reports [2]map[string]map[string]string
			for i, launched := range []bool{false, true} {
				w := newWorld(t, launched)
				spec := baseSpec()
				spec.Linux.CgroupsPath = w.cgroup()
				spec.Process.Terminal = true
				spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
				edit(spec)
				reports[i] = map[string]map[string]string{}

				terminal := w.console()
				init, err := w.create(spec, "--console-socket", w.consoleSocket())
				w.must(err)
				w.must(w.start(init))
				reports[i]["init"] = probe.Read(init.reportFrom(<-terminal), true, w.cgroup(), "CGROUP")

				proc := *spec.Process
				proc.Args = []string{"probe", "once"}
				terminal = w.console()
				session, err := w.exec(&proc, "--console-socket", w.consoleSocket())
				w.must(err)
				reports[i]["exec"] = probe.Read(session.reportFrom(<-terminal), false, w.cgroup(), "CGROUP")
				if status, _ := session.wait(); status != 0 {
					t.Errorf("exec session: exit status %d", status)
				}
			}
			for _, what := range []string{"init", "exec"} {
				want, got := reports[0][what], reports[1][what]
				if want["tty"] != "1" || want["tty-foreground"] != "1" || len(want) < 50 {
					t.Errorf("%s: has no terminal even alone: %v", what, want)
				}
				want["status.Seccomp"], want["status.Seccomp_filters"] = "2", "1"
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-alone +launched):\n%s", what, diff)
				}
			}
		})
	}
}

func (w *world) consoleSocket() string { return filepath.Join(w.dir, "console") }

// console listens for the terminal that runc makes, and gives its master side.
func (w *world) console() <-chan *os.File {
	w.t.Helper()
	os.Remove(w.consoleSocket())
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.consoleSocket(), Net: "unix"})
	w.must(err)
	got := make(chan *os.File, 1)
	go func() {
		defer close(got)
		defer ln.Close()
		conn, err := ln.AcceptUnix()
		if err != nil {
			w.t.Errorf("console: %v", err)
			return
		}
		defer conn.Close()
		name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := conn.ReadMsgUnix(name, oob)
		if err != nil {
			w.t.Errorf("console: %v", err)
			return
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(msgs) != 1 {
			w.t.Errorf("console: %d messages, %v", len(msgs), err)
			return
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			w.t.Errorf("console: %v", err)
			return
		}
		unix.SetNonblock(fds[0], true) //nolint:errcheck // then there is no deadline
		f := os.NewFile(uintptr(fds[0]), "console")
		w.t.Cleanup(func() { f.Close() })
		got <- f
	}()
	return got
}
