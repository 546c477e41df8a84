// SPDX-License-Identifier: Apache-2.0

//go:build seccomp && linux && amd64 && cgo

package libseccomp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify"
)

// victimPolicy is what the victim puts on itself, each call for one end.
func victimPolicy() seccomp.Policy {
	errno := func(e uint) *uint { return &e }
	return seccomp.Policy{
		Native: seccomp.ArchAMD64,
		Pod: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX32}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"getppid"}, Action: specs.ActKillProcess},
			{Names: []string{"getpgid"}, Action: specs.ActTrap},
			{Names: []string{"uname"}, Action: specs.ActErrno, ErrnoRet: errno(uint(unix.EACCES))},
			{Names: []string{"chroot"}, Action: specs.ActErrno, ErrnoRet: errno(0)},
			{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1 << 33, Op: specs.OpGreaterEqual}}},
		}},
		Layers: []seccomp.Layer{{Name: "layer", Deny: []seccomp.Rule{
			{ID: "no-uts", Syscalls: []string{"sethostname"}},
			{ID: "no-vsock", Syscalls: []string{"socket"}, Errno: uint16(unix.EAFNOSUPPORT), Args: []seccomp.Cond{{Index: 0, Op: seccomp.OpEqual, Value: unix.AF_VSOCK}}},
		}}},
	}
}

// victim installs the filter on its first thread, answers its notifications on another as the supervisor does, and
// makes the call that the command line names.
func victim() {
	prog, err := seccomp.Compile(victimPolicy())
	if err != nil {
		fail(err)
	}
	fd, err := install(sockFilter(prog), prog.FilterFlags()|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil {
		fail(fmt.Errorf("install: %w", err))
	}
	listener, err := notify.NewListener(fd)
	if err != nil {
		fail(err)
	}
	go func() {
		runtime.LockOSThread()
		if err := answer(listener, prog); err != nil {
			fail(err)
		}
	}()
	var call [4]uintptr
	if err := json.Unmarshal([]byte(os.Getenv("METSUKE_LIBSECCOMP_CALL")), &call); err != nil {
		fail(err)
	}
	got, _, errno := unix.Syscall(call[0], call[1], call[2], call[3])
	fmt.Printf("%d %d", int(got), int(errno))
	os.Exit(0)
}

func answer(l *notify.Listener, prog *seccomp.Program) error {
	for {
		var r notify.Request
		switch err := l.Receive(&r); {
		case errors.Is(err, notify.ErrVanished):
			continue
		case err != nil:
			return err
		}
		dec := prog.Decide(&seccomp.Data{Nr: r.Data.Nr, Arch: r.Data.Arch, IP: r.Data.IP, Args: r.Data.Args})
		resp := notify.Response{Continue: true}
		if dec.Action == seccomp.ActionDeny {
			resp = notify.Response{Error: -int32(dec.Errno)}
		}
		if err := l.Respond(r.ID, resp); err != nil && !errors.Is(err, notify.ErrVanished) {
			return err
		}
	}
}

// TestVictim: our filter in a real process, answered as the supervisor answers it.
func TestVictim(t *testing.T) {
	for _, c := range []struct {
		name string
		call [4]uintptr
		out  string         // what the call returned, and its errno
		dies syscall.Signal // instead
	}{
		{"pod kills", [4]uintptr{unix.SYS_GETPPID}, "", syscall.SIGSYS},
		{"pod traps", [4]uintptr{unix.SYS_GETPGID}, "", syscall.SIGSYS},
		{"pod denies", [4]uintptr{unix.SYS_UNAME}, fmt.Sprintf("-1 %d", unix.EACCES), 0},
		{"pod skips", [4]uintptr{unix.SYS_CHROOT}, "0 0", 0}, // with no path it would be EFAULT
		{"pod denies by 64 bits", [4]uintptr{unix.SYS_PERSONALITY, 1 << 33}, fmt.Sprintf("-1 %d", unix.EPERM), 0},
		{"pod allows below", [4]uintptr{unix.SYS_PERSONALITY, 0xffffffff}, "0 0", 0},
		{"layer denies", [4]uintptr{unix.SYS_SETHOSTNAME}, fmt.Sprintf("-1 %d", unix.EPERM), 0},
		{"layer denies by register", [4]uintptr{unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM}, fmt.Sprintf("-1 %d", unix.EAFNOSUPPORT), 0},
		{"upper half does not evade", [4]uintptr{unix.SYS_SOCKET, 1<<40 | unix.AF_VSOCK, unix.SOCK_STREAM}, fmt.Sprintf("-1 %d", unix.EAFNOSUPPORT), 0},
		{"foreign ABI", [4]uintptr{unix.SYS_GETPID | 0x40000000}, fmt.Sprintf("-1 %d", unix.ENOSYS), 0},
		{"tracked and goes on", [4]uintptr{unix.SYS_SETGROUPS, 1 << 31}, fmt.Sprintf("-1 %d", unix.EINVAL), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := json.Marshal(c.call)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/proc/self/exe")
			cmd.Env = []string{roleVariable + "=" + roleVictim, "METSUKE_LIBSECCOMP_CALL=" + string(call), "GOTRACEBACK=none"}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			state := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if c.dies != 0 {
				// SIGSYS that the kernel sends for a trap is Go's to report, by an exit with status 2
				trapped := state.ExitStatus() == 2 && strings.Contains(stderr.String(), "SIGSYS")
				if !(state.Signaled() && state.Signal() == c.dies || trapped) {
					t.Errorf("ended with %v (%v), want %v\n%s%s", state, err, c.dies, out, &stderr)
				}
				return
			}
			if err != nil || string(out) != c.out {
				t.Errorf("returned %q, want %q (%v)\n%s", out, c.out, err, &stderr)
			}
		})
	}
}
