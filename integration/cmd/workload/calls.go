// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// calls are the system calls that tests try, by name. Every argument is a number; pointers are given as 0, which a filter
// does not mind, and which makes most calls fail harmlessly (EFAULT, EINVAL) where they are allowed.
var calls = map[string]uintptr{
	"add_key":           unix.SYS_ADD_KEY,
	"bpf":               unix.SYS_BPF,
	"chroot":            unix.SYS_CHROOT,
	"clock_settime":     unix.SYS_CLOCK_SETTIME,
	"clone3":            unix.SYS_CLONE3,
	"delete_module":     unix.SYS_DELETE_MODULE,
	"finit_module":      unix.SYS_FINIT_MODULE,
	"getpid":            unix.SYS_GETPID,
	"getppid":           unix.SYS_GETPPID,
	"init_module":       unix.SYS_INIT_MODULE,
	"io_uring_setup":    unix.SYS_IO_URING_SETUP,
	"io_uring_enter":    unix.SYS_IO_URING_ENTER,
	"io_uring_register": unix.SYS_IO_URING_REGISTER,
	"kexec_load":        unix.SYS_KEXEC_LOAD,
	"keyctl":            unix.SYS_KEYCTL,
	"kill":              unix.SYS_KILL,
	"mount":             unix.SYS_MOUNT,
	"move_mount":        unix.SYS_MOVE_MOUNT,
	"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT,
	"perf_event_open":   unix.SYS_PERF_EVENT_OPEN,
	"personality":       unix.SYS_PERSONALITY,
	"pivot_root":        unix.SYS_PIVOT_ROOT,
	"process_vm_readv":  unix.SYS_PROCESS_VM_READV,
	"process_vm_writev": unix.SYS_PROCESS_VM_WRITEV,
	"ptrace":            unix.SYS_PTRACE,
	"quotactl":          unix.SYS_QUOTACTL,
	"reboot":            unix.SYS_REBOOT,
	"request_key":       unix.SYS_REQUEST_KEY,
	"setns":             unix.SYS_SETNS,
	"settimeofday":      unix.SYS_SETTIMEOFDAY,
	"socket":            unix.SYS_SOCKET,
	"swapon":            unix.SYS_SWAPON,
	"syslog":            unix.SYS_SYSLOG,
	"umount2":           unix.SYS_UMOUNT2,
	"unshare":           unix.SYS_UNSHARE,
	"userfaultfd":       unix.SYS_USERFAULTFD,
}

// systemCall prints "NAME = RESULT" or "NAME: ERRNO", and exits 0 either way: what is tried is no failure of the trial.
func systemCall(args []string) int {
	if len(args) == 0 {
		return fatal(errors.New("syscall needs a name"))
	}
	number, ok := calls[args[0]]
	if !ok {
		parsed, err := strconv.ParseUint(args[0], 0, 32)
		if err != nil {
			return fatal(fmt.Errorf("system call %q is not in the workload's table", args[0]))
		}
		number = uintptr(parsed)
	}
	var registers [6]uintptr
	for i, arg := range args[1:] {
		value, err := strconv.ParseInt(arg, 0, 64)
		if err != nil || i >= len(registers) {
			return fatal(fmt.Errorf("argument %d: %q is not a number", i, arg))
		}
		registers[i] = uintptr(value)
	}
	result, _, errno := unix.Syscall6(number, registers[0], registers[1], registers[2], registers[3], registers[4], registers[5])
	if errno != 0 {
		fmt.Printf("%s: %s\n", args[0], unix.ErrnoName(errno))
		return 0
	}
	fmt.Printf("%s = %d\n", args[0], result)
	return 0
}

// flood makes one call many times from one thread.
func flood(args []string) int {
	if len(args) != 2 {
		return fatal(errors.New("flood needs a name and a number"))
	}
	number, ok := calls[args[0]]
	times, err := strconv.Atoi(args[1])
	if !ok || err != nil {
		return fatal(fmt.Errorf("flood %v: unknown call or not a number", args))
	}
	failed := 0
	for range times {
		if _, _, errno := unix.Syscall6(number, 0, 0, 0, 0, 0, 0); errno != 0 {
			failed++
		}
	}
	fmt.Println(failed)
	return 0
}

// fork starts processes until it has as many as asked, or the first refusal.
func fork(args []string) int {
	if len(args) != 1 {
		return fatal(errors.New("fork needs a number"))
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return fatal(err)
	}
	var running []*exec.Cmd
	var refused error
	for range want {
		cmd := exec.Command("/proc/self/exe", "pause")
		// The child must not need threads of its own beyond what one Go program does; it only waits.
		if refused = cmd.Start(); refused != nil {
			break
		}
		running = append(running, cmd)
	}
	fmt.Printf("%d of %d", len(running), want)
	if refused != nil {
		fmt.Printf(": %v", refused)
	}
	fmt.Println()
	for _, cmd := range running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return 0
}

func memory(args []string) int {
	if len(args) != 1 {
		return fatal(errors.New("memory needs a number"))
	}
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return fatal(err)
	}
	// Piece by piece, so that a limit is met by the touch, not by one huge reservation.
	var held [][]byte
	for range mib {
		piece := make([]byte, 1<<20)
		for i := 0; i < len(piece); i += os.Getpagesize() {
			piece[i] = 1
		}
		held = append(held, piece)
	}
	fmt.Println("ok", len(held))
	return 0
}

func open(args []string) int {
	if len(args) < 2 {
		return fatal(errors.New("open needs a path and a number"))
	}
	turns, err := strconv.Atoi(args[1])
	if err != nil {
		return fatal(err)
	}
	flags := syscall.O_RDONLY
	if len(args) > 2 && args[2] == "rw" {
		flags = syscall.O_RDWR | syscall.O_CREAT
	}
	begin := time.Now()
	for range turns {
		fd, err := syscall.Open(args[0], flags|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			return fatal(err)
		}
		_ = syscall.Close(fd)
	}
	fmt.Println(time.Since(begin).Nanoseconds() / int64(max(turns, 1)))
	return 0
}

// foreign makes a call of the 32-bit ABI: number of <asm/unistd_32.h>. It prints the result, an errno negative.
func foreign(args []string) int {
	if len(args) != 1 {
		return fatal(errors.New("foreign needs a number"))
	}
	number, err := strconv.ParseUint(args[0], 0, 32)
	if err != nil {
		return fatal(err)
	}
	fmt.Println(int80(uint32(number)))
	return 0
}
