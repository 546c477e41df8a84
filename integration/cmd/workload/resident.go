// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// resident attacks Metsuke's supervisor in this container, or in all that share its pid namespace, and prints what came of each
// attempt: "NAME: ERRNO", or "NAME: done".
func resident(args []string) int {
	attempts := map[string]func(pid int, args []string){
		"newest": signalResident, "signals": everySignal, "enter": enterResident, "limit": limitResident, "starve": starveResident,
		"orphaned": orphaned, "stopped": stopped,
	}
	if len(args) == 0 {
		return fatal(errors.New("resident needs an attempt"))
	}
	attempt, ok := attempts[args[0]]
	if !ok {
		return fatal(fmt.Errorf("no attempt %q", args[0]))
	}
	pids := helpers("audit")
	if len(pids) == 0 {
		return fatal(errors.New("there is no resident"))
	}
	if args[0] == "newest" {
		pids = pids[:1]
	}
	for _, pid := range pids {
		attempt(pid, args[1:])
	}
	return 0
}

// helpers are the processes that run the helper with this verb, the newest first.
func helpers(verb string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, file := range files {
		text, _ := os.ReadFile(file)
		args := strings.Split(string(text), "\x00")
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && len(args) > 1 && isHelper(args[0]) && args[1] == verb {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	slices.Reverse(pids)
	return pids
}

// isHelper says whether path is that of the helper.
func isHelper(path string) bool {
	return strings.HasPrefix(path, "/.metsuke") && strings.HasSuffix(path, "/guest")
}

func report(name string, err error) {
	var errno unix.Errno
	switch {
	case err == nil:
		fmt.Println(name + ": done")
	case errors.As(err, &errno):
		fmt.Println(name + ": " + unix.ErrnoName(errno))
	default:
		fmt.Println(name+":", err)
	}
}

func signalResident(pid int, args []string) {
	number, err := strconv.Atoi(strings.Join(args, " "))
	if err == nil {
		err = unix.Kill(pid, unix.Signal(number))
	}
	report("signal", err)
}

// everySignal sends all signals that can be ignored.
func everySignal(pid int, _ []string) {
	for signal := unix.Signal(1); signal <= 64; signal++ {
		if signal != unix.SIGKILL && signal != unix.SIGSTOP {
			if err := unix.Kill(pid, signal); err != nil {
				report(fmt.Sprint("signal ", int(signal)), err)
			}
		}
	}
	report("signals", nil)
}

// enterResident tries each way into a process that there is.
func enterResident(pid int, _ []string) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, file := range []string{"mem", "environ", "auxv", "maps", "syscall", "task/" + strconv.Itoa(pid) + "/mem"} {
		report("open "+file, func() error {
			f, err := os.OpenFile(proc+file, os.O_RDONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			n, err := f.Read(make([]byte, 16))
			if n == 0 && err != nil {
				return unix.EACCES // empty: some say no that way
			}
			return nil
		}())
	}
	for _, link := range []string{"root", "cwd", "exe", "fd/0", "fd/1", "ns/mnt", "ns/cgroup"} {
		_, err := os.Readlink(proc + link)
		report("link "+link, err)
	}
	_, err := os.ReadDir(proc + "root/")
	report("list root", err)
	report("write fd/1", os.WriteFile(proc+"fd/1", []byte("x"), 0))
	report("write mem", os.WriteFile(proc+"mem", []byte("x"), 0))
	report("ptrace", ptrace(unix.PTRACE_SEIZE, pid))
	_, err = unix.ProcessVMReadv(pid, []unix.Iovec{iovec(make([]byte, 8))}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	report("process_vm_readv", err)
	_, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 0, 0, 0, 0) // KCMP_FILE
	report("kcmp", failed(errno))
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		report("pidfd_open", err)
		return
	}
	defer unix.Close(fd)
	for target := range 3 {
		_, _, errno := unix.Syscall(unix.SYS_PIDFD_GETFD, uintptr(fd), uintptr(target), 0)
		report(fmt.Sprint("pidfd_getfd ", target), failed(errno))
	}
	report("setns", unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWCGROUP))
	iov := iovec(make([]byte, 8))
	_, _, errno = unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptrOf(&iov), 1, unix.MADV_COLD, 0, 0)
	report("process_madvise", failed(errno))
	_, _, errno = unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	report("process_mrelease", failed(errno))
}

// limitResident takes resources from the process: without descriptors it could not look at callers, nor kill any.
func limitResident(pid int, _ []string) {
	for name, limit := range map[string]int{
		"nofile": unix.RLIMIT_NOFILE, "as": unix.RLIMIT_AS, "cpu": unix.RLIMIT_CPU, "nproc": unix.RLIMIT_NPROC, "fsize": unix.RLIMIT_FSIZE,
	} {
		report("limit "+name, unix.Prlimit(pid, limit, &unix.Rlimit{}, nil))
	}
}

// starveResident makes it the last in every queue. It may; that slows this container's own calls.
func starveResident(pid int, _ []string) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	var first unix.CPUSet
	first.Set(0)
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			continue
		}
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 19)
		_ = unix.SchedSetaffinity(tid, &first)
		_ = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/coredump_filter", pid), []byte("0x7f"), 0)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	report("starve", nil)
}

// orphaned kills the process and then tries to do without it: what it answered, a listener of one's own would.
func orphaned(pid int, args []string) {
	path := strings.Join(args, " ")
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		report("pidfd_open", err)
		return
	}
	report("kill", unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1) // until its listeners are closed
	report("openat", create(path))
	_, _, errno := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
	report("getppid", failed(errno))
	answered, err := answerMyself(unix.SYS_OPENAT, func() error { return create(path) })
	report("seccomp", err)
	if err == nil {
		report("openat, answered by myself", answered)
	}
	fmt.Println("orphaned")
	time.Sleep(time.Hour)
}

// stopped stops the process, makes calls that it answers, lets it go on, and says which had returned when.
func stopped(pid int, args []string) {
	calls := map[string]func() error{
		"openat": func() error { return create(strings.Join(args, " ")) },
		"getppid": func() error {
			_, _, errno := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			return failed(errno)
		},
	}
	report("stop", unix.Kill(pid, unix.SIGSTOP))
	results := make(chan string, len(calls))
	for name, call := range calls {
		go func() {
			err := call()
			results <- fmt.Sprintf("%s: %v", name, err)
		}()
	}
	select {
	case result := <-results:
		fmt.Println("not held up:", result)
	case <-time.After(time.Second):
	}
	report("continue", unix.Kill(pid, unix.SIGCONT))
	for range calls {
		fmt.Println(<-results)
	}
}

func create(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// answerMyself has a call notified to this process, by a filter of its own, and lets it go on. The error says why there is no
// listener.
func answerMyself(number uint32, call func() error) (result, err error) {
	ready, done := make(chan error), make(chan error)
	var listener int
	go func() {
		runtime.LockOSThread() // and never unlocked: the filter is the thread's
		listener, err = notifyMyself(number)
		ready <- err
		if err == nil {
			done <- call()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	go answerAll(listener)
	return <-done, nil
}

// impersonate waits for launchers, reads the token of each, and runs the helper with it, faster if it can: until it has stolen some
// tokens, or some seconds have passed.
func impersonate(args []string) int {
	var enough, seconds int
	if _, err := fmt.Sscan(strings.Join(args, " "), &enough, &seconds); err != nil {
		return fatal(err)
	}
	stolen := map[string]bool{}
	fmt.Println("ready")
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end) && len(stolen) < enough; {
		for _, pid := range helpers("run") {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			words := bytes.Split(text, []byte{0})
			if len(words) < 4 || stolen[string(words[2])] {
				continue
			}
			helper, token := string(words[0]), string(words[2])
			root := rootWith(helper)
			if root == "" {
				continue
			}
			stolen[token] = true
			for range 4 {
				cmd := exec.Command(helper, "run", token, "--", "/bin/sh", "-c", "echo impersonated; cat /proc/self/status")
				cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
				cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
				_ = cmd.Start() // without waiting: the faster, the better
				go func() { _ = cmd.Wait() }()
			}
		}
	}
	time.Sleep(time.Second) // what was started may have something to say
	fmt.Println("stolen", len(stolen) > 0)
	return 0
}

// rootWith finds a process of the container that has this file, and returns its root; "" if there is none that we may look into.
func rootWith(file string) string {
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, root := range append([]string{"/"}, roots...) {
		if _, err := os.Stat(root + file); err == nil {
			return root
		}
	}
	return ""
}

// exchange swaps two names without pause, for some seconds.
func exchange(args []string) int {
	if len(args) != 3 {
		return fatal(errors.New("exchange needs two names and a number of seconds"))
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return fatal(err)
	}
	fmt.Println("ready")
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_ = unix.Renameat2(unix.AT_FDCWD, args[0], unix.AT_FDCWD, args[1], unix.RENAME_EXCHANGE)
	}
	return 0
}

func failed(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
