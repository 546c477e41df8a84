// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/channel"
)

// processors is how much Go code may run at once, however many CPUs there are: a session mostly waits in the kernel. With
// few CPUs it is more than them, for the Go runtime leaves a processor with a thread for a while that waits there.
const processors = 4

// spareThreads is how many threads there are beside those of the sessions: one for each processor, and for what may block
// in the kernel besides (a Control, a look at a launcher).
const spareThreads = processors + 4

// garbage is how much of the heap may be garbage, in percent of what is not. Beyond a megabyte, memory is dearer here than
// time: it is the container's.
const garbage = 25

// files is how many descriptors we want to have at least: up to two for each thread whose identity is kept, and some more.
const files = 2048

// savedGroup is our saved group, any but our own.
const savedGroup = 1

// harden makes the process hard to disturb. It is the first thing that is done.
func harden() error {
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GO") {
			name, _, _ := strings.Cut(v, "=")
			return fmt.Errorf("the environment has %s, which would steer the Go runtime", name)
		}
	}
	if err := withoutHugePages(); err != nil {
		return err
	}
	// Nobody in the container may attach to us, or look at our descriptors, with less than CAP_SYS_PTRACE.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	// Nor may root without CAP_SYS_RESOURCE take our resource limits away: whoever changes those of another process has to be all
	// of its ids (kernel/sys.c, check_prlimit_permission), and nobody is two groups. With no descriptor to be had we would not
	// see who calls, nor could we kill it.
	if err := unix.Setresgid(-1, -1, savedGroup); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := ignoreSignals(); err != nil {
		return err
	}
	debug.SetGCPercent(garbage)
	debug.SetMaxThreads(channel.ResidentTasks) // it ends the process rather than exceed it
	runtime.GOMAXPROCS(processors)
	limit := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Max < files {
		// If it cannot be, fewer identities are kept.
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files})
	}
	// The container's memory runs out for the workload first. Where we may not say so, the two are equal.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil &&
		!errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

// makeThreads has the Go runtime make all the threads that it will ever need, and returns how many there are. It keeps
// them, and makes one only if none is idle. Later the workload may have used up the container's pids, and a
// runtime that cannot make a thread ends the process.
func makeThreads() (int, error) {
	var up, down sync.WaitGroup
	release := make(chan struct{})
	for range channel.MaxSessions + spareThreads {
		up.Add(1)
		down.Go(func() {
			runtime.LockOSThread() // a thread of its own for as long as it waits
			up.Done()
			<-release
			runtime.UnlockOSThread()
		})
	}
	up.Wait()
	close(release)
	down.Wait()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0, err
	}
	if len(tasks) > channel.ResidentTasks {
		return 0, fmt.Errorf("this process has %d threads, %d are allowed", len(tasks), channel.ResidentTasks)
	}
	return len(tasks), nil
}

// withoutHugePages sees to it that the process has been without them from its first page on, which takes an exec. Where the
// kernel hands them out unasked, as Debian's does, they make half of our memory.
func withoutHugePages() error {
	if off, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0); err != nil || off != 0 {
		return nil //nolint:nilerr // a kernel that does not know has none
	}
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_THP_DISABLE: %w", err)
	}
	return fmt.Errorf("exec without huge pages: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}
