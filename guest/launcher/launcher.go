// SPDX-License-Identifier: Apache-2.0

// Package launcher is what runs in a container instead of its workload, until it becomes the
// workload: it fetches its plan from the supervisor, puts a seccomp filter with a user-notification
// listener on itself, hands the listener over, waits until it is armed, and execs.
//
// The thread that loads the filter is the one that execs, and from the load on it makes two kinds
// of system call only, futex and execve: every call may be notified, denied or deadly under the
// filter, and nobody answers until the supervisor has the listener. So a second thread, which the
// filter does not hold, hands the listener over, waits for the supervisor, and reports a failure;
// execve ends it. On the filtered thread there is no Go scheduling either (no goroutine switch, no
// allocation, no function with a stack check): it would be a futex call at the least.
//
// Whatever goes wrong, the process reports it and exits: no workload runs that is not armed.
//
// The package uses the packages runtime, sync/atomic and syscall only. Each further one (os, fmt,
// net, time) costs every container start-up time, and os and net act on file descriptors.
package launcher

import (
	"path"
	"syscall"

	"metsuke.dev/metsuke/guest/plan"
)

// socket is the name of the supervisor's socket, which is beside the helper.
const socket = "sock"

// exitFailed is the exit status if the workload did not come to run; runc's own is the same.
const exitFailed = 255

// exitUsage is the exit status if no supervisor could be asked: there is nobody else to tell.
const exitUsage = 125

// Main becomes the workload, or exits; it never returns. args are those after the verb: a token,
// "--", and the workload's arguments.
//
// It must be called from an init function: there the main goroutine is wired to the main thread,
// which has to be the one that execs so that thread and process keep their id, and the runtime
// needs one thread fewer than after runtime.LockOSThread.
func Main(args []string) {
	// Package syscall has raised the soft RLIMIT_NOFILE and puts it back only in Exec; the failed
	// exec leaves nothing else behind.
	_ = syscall.Exec("", []string{""}, nil)
	// Nobody in the container may attach to us (ptrace, /proc/<pid>/mem) while we have no filter.
	// execve makes the workload dumpable again.
	_ = prctl(syscall.PR_SET_DUMPABLE, 0) // cannot fail with these arguments

	if len(args) < 3 || args[1] != "--" {
		usage("run: want TOKEN -- ARGUMENTS")
	}
	hello, err := plan.Hello{Token: args[0]}.Append(nil)
	if err != nil {
		usage("run: " + err.Error())
	}
	argv := args[2:]
	startReporter()
	conn := dial(path.Dir(runtimeArgs()[0]) + "/" + socket)
	p := fetch(conn, hello)
	apply(conn, p)
	env := plan.MergeEnv(environ(), p.Env)
	file := lookPath(conn, argv[0], env) // with the capabilities that the plan leaves
	target, err := newExecTarget(file, argv, env)
	if err != nil {
		fail(conn, plan.StageExecutable, syscall.EINVAL, argv[0])
	}
	become(conn, p, target)
}

// apply does what the plan asks for ahead of the filter. The order counts: raising a resource limit and lowering the OOM
// score take CAP_SYS_RESOURCE.
func apply(conn int, p *plan.Plan) {
	if p.OOMScoreAdj != nil {
		if errno := writeOOMScoreAdj(*p.OOMScoreAdj); errno != 0 {
			fail(conn, plan.StageOOMScore, errno, "")
		}
	}
	for _, r := range p.Rlimits {
		if errno := setRlimit(r); errno != 0 {
			fail(conn, plan.StageRlimit, errno, "")
		}
	}
	if p.Caps != nil {
		if errno := lowerCaps(*p.Caps); errno != 0 {
			fail(conn, plan.StageCaps, errno, "")
		}
	}
	if p.NoNewPrivs {
		if errno := prctl(prSetNoNewPrivs, 1); errno != 0 {
			fail(conn, plan.StageNoNewPrivs, errno, "")
		}
	}
}

// lookPath finds the executable as runc does (os/exec.LookPath): with the PATH of the container's
// environment, and as the user that it will run as.
func lookPath(conn int, name string, env []string) string {
	if name == "" || name == "." || name == ".." {
		fail(conn, plan.StageNotFound, 0, name)
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if stage, errno := checkExecutable(name); stage != 0 {
			fail(conn, stage, errno, name)
		}
		return name
	}
	list := pathVar(env)
	for more := list != ""; more; {
		var dir string
		dir, list, more = cutList(list)
		if dir == "" {
			dir = "." // as shells do
		}
		file := path.Join(dir, name)
		if stage, _ := checkExecutable(file); stage == 0 {
			if file[0] != '/' {
				fail(conn, plan.StageRelative, 0, name)
			}
			return file
		}
	}
	fail(conn, plan.StageNotFound, 0, name)
	return ""
}

// pathVar returns the value of PATH: of several the last, which is the one that counts for runc.
func pathVar(env []string) (value string) {
	for _, v := range env {
		if len(v) >= 5 && v[:5] == "PATH=" {
			value = v[5:]
		}
	}
	return value
}

// cutList splits a list at its first colon.
func cutList(list string) (head, tail string, more bool) {
	for i := range len(list) {
		if list[i] == ':' {
			return list[:i], list[i+1:], true
		}
	}
	return list, "", false
}

// checkExecutable says whether file can be executed, else at what that fails; stage 0 means that it can.
func checkExecutable(file string) (plan.Stage, syscall.Errno) {
	var st syscall.Stat_t
	err := retry(func() error { return syscall.Stat(file, &st) })
	if err != nil {
		return plan.StageStat, errnoOf(err)
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return plan.StageExecutable, syscall.EISDIR
	}
	err = syscall.Faccessat(atFDCWD, file, xOK, atEaccess)
	if err == nil {
		return 0, 0
	}
	// Where the call is not to be had, the permission bits have to do, as in os/exec.
	if errno := errnoOf(err); errno != syscall.ENOSYS && errno != syscall.EPERM {
		return plan.StageExecutable, errno
	}
	if st.Mode&0o111 == 0 {
		return plan.StageExecutable, syscall.EACCES
	}
	return 0, 0
}

// retry calls f until it is not interrupted by a signal.
func retry(f func() error) error {
	for {
		if err := f(); err != syscall.EINTR { //nolint:errorlint // package syscall wraps nothing, and errors costs size
			return err
		}
	}
}

// errnoOf returns the errno in an error of package syscall.
func errnoOf(err error) syscall.Errno {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // as above
		return errno
	}
	return syscall.EINVAL
}

// writeOOMScoreAdj sets the process's own oom_score_adj.
func writeOOMScoreAdj(adj int) syscall.Errno {
	// The files in /proc of a process that is not dumpable are root's.
	_ = prctl(syscall.PR_SET_DUMPABLE, 1)
	fd, err := syscall.Open("/proc/self/oom_score_adj", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	_ = prctl(syscall.PR_SET_DUMPABLE, 0) // cannot fail with these arguments
	if err != nil {
		return errnoOf(err)
	}
	_, err = syscall.Write(fd, itoa(adj))
	syscall.Close(fd)
	if err != nil {
		return errnoOf(err)
	}
	return 0
}

// itoa returns n in decimal.
func itoa(n int) []byte {
	var b [8]byte
	i, u := len(b), n
	if n < 0 {
		u = -n
	}
	for {
		i--
		b[i] = byte('0' + u%10)
		if u /= 10; u == 0 {
			break
		}
	}
	if n < 0 {
		i--
		b[i] = '-'
	}
	return b[i:]
}
