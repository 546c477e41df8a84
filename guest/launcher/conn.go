// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"syscall"

	"metsuke.dev/metsuke/guest/plan"
)

// dial connects to the supervisor. Without one there is nobody to tell but the container's stderr.
func dial(socket string) (conn int) {
	conn, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		limit := syscall.Timeval{Sec: plan.MaxWait}
		_ = syscall.SetsockoptTimeval(conn, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
		_ = syscall.SetsockoptTimeval(conn, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit)
		err = connect(conn, socket, plan.MaxWait*1e9)
	}
	if err != nil {
		usage("run: connect " + socket + ": " + err.Error())
	}
	return conn
}

// connect waits for up to limit nanoseconds for a supervisor that does not listen yet: one that runs in the container
// itself is started after the container's first process.
func connect(conn int, path string, limit int64) error {
	pause := int64(pauseLeast)
	for waited := int64(0); ; waited += pause {
		err := retry(func() error {
			return syscall.Connect(conn, &syscall.SockaddrUnix{Name: path})
		})
		if err != syscall.ENOENT && err != syscall.ECONNREFUSED || waited >= limit { //nolint:errorlint // see retry
			return err
		}
		sleep(pause)
		pause = min(pause*5/4, pauseMost)
	}
}

// fetch says hello and returns the plan. A supervisor that hangs up has refused us, or is
// gone: it knows, so there is nothing to tell it.
func fetch(conn int, hello []byte) *plan.Plan {
	if !send(conn, hello) {
		syscall.Exit(exitFailed)
	}
	head := make([]byte, plan.HeaderSize)
	if !receive(conn, head) {
		syscall.Exit(exitFailed)
	}
	t, size, err := plan.ParseHeader(head)
	if err != nil || t != plan.TypePlan {
		fail(conn, plan.StagePlan, syscall.EPROTO, "")
	}
	body := make([]byte, size)
	if !receive(conn, body) {
		syscall.Exit(exitFailed)
	}
	p, err := plan.DecodePlan(body)
	if err != nil {
		fail(conn, plan.StagePlan, syscall.EPROTO, "")
	}
	return p
}

// send writes all of b.
func send(conn int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.SendmsgN(conn, b, nil, nil, syscall.MSG_NOSIGNAL)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

// receive fills b.
func receive(conn int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.Read(conn, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// fail reports a failure and exits once the supervisor hangs up: the end of a container's first process is the end of a
// supervisor in the same container, which must be able to pass the report on. Only a thread without the filter may call
// it.
func fail(conn int, stage plan.Stage, errno syscall.Errno, arg string) {
	if send(conn, plan.Failure{Stage: stage, Errno: uint16(errno), Arg: arg}.Append(nil)) {
		receive(conn, make([]byte, 1))
	}
	syscall.Exit(exitFailed)
}

// usage says on stderr why there is nobody to report to, and exits.
func usage(msg string) {
	complain("metsuke-guest: " + msg)
	syscall.Exit(exitUsage)
}

// complain writes a line to stderr.
func complain(msg string) {
	_, _ = syscall.Write(2, []byte(msg+"\n"))
}
