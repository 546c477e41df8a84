// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// fifoLog writes to the "log" FIFO of a bundle, which containerd reads into its own log. It never blocks and never
// fails: while containerd is away, or slow, what does not fit into the pipe is dropped.
type fifoLog struct{ fd int }

func (l fifoLog) Write(p []byte) (int, error) {
	if l.fd >= 0 {
		_, _ = unix.Write(l.fd, p)
	}
	return len(p), nil
}

// setLog sends the log, and standard error with what the runtime has to say of a crash, to the bundle's FIFO.
func setLog(st *State) {
	_ = log.SetFormat(log.TextFormat)
	if st.Debug {
		_ = log.SetLevel("debug")
	}
	w := fifoLog{fd: -1}
	// O_NONBLOCK so that a FIFO without a reader is no obstacle (ENXIO, fifo(7)); nothing but a FIFO is taken.
	fd, err := unix.Open(filepath.Join(st.Bundle, "log"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == nil {
		var s unix.Stat_t
		if unix.Fstat(fd, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFIFO {
			w.fd = fd
			_ = unix.Dup3(fd, int(os.Stderr.Fd()), 0)
		} else {
			unix.Close(fd)
		}
	}
	log.L.Logger.SetOutput(w)
	log.L = log.L.WithField("runtime", "metsuke").WithField("id", st.ID).WithField("namespace", st.Namespace)
}
