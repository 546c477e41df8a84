// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/seccomp/notify"
)

// Node is what is looked at, and how. Paths are the node's.
type Node struct {
	Tree *tree.Tree // its files

	release func() // of the socket; nil: there is none

	// CRI is containerd's; nil where it does not answer, and CRIError says why.
	CRI      *cri.Client
	CRIError error

	// Containerd is what reads containerd's files; nil where it is not known, and ContainerdError says why.
	Containerd      *containerd.Containerd
	ContainerdError error
	KillMode        string // of containerd's unit (systemd.kill(5)); empty: not known

	Path []string // containerd's: where it looks for shims, shims for delegates, and these for their programs

	// Config is the configuration to look at in the place of those that the handlers name; empty: those.
	Config string

	Kernel  Kernel
	Version string // of the Metsuke that looks

	// Run runs a program of the node and returns what it prints, stdout and stderr.
	Run func(ctx context.Context, binary string, args ...string) ([]byte, error)
	// Statfs describes the file system of a file of the node, which is there.
	Statfs func(file string) (unix.Statfs_t, error)
}

// Kernel is what the kernel answers about itself.
type Kernel struct {
	Release      string // "6.18.44"
	Notify       notify.Support
	NotifyError  error // there can be no listener
	Now          time.Time
	Synchronised bool // adjtimex(2): the clock is not STA_UNSYNC
	ClockError   error
}

// ThisKernel asks the running kernel.
func ThisKernel() Kernel {
	k := Kernel{Now: time.Now()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		k.Release = unix.ByteSliceToString(name.Release[:])
	}
	k.Notify, k.NotifyError = notify.Probe()
	var timex unix.Timex
	_, k.ClockError = unix.Adjtimex(&timex) // without modes it changes nothing
	k.Synchronised = timex.Status&unix.STA_UNSYNC == 0
	return k
}

// maxOutput bounds what is kept of a program's output, in bytes.
const maxOutput = 64 << 10

// programTime bounds a program that is asked for its version.
const programTime = 10 * time.Second

// runOn returns what runs programs, with this PATH, on the node whose root is root.
func runOn(root string, path []string) func(ctx context.Context, binary string, args ...string) ([]byte, error) {
	return func(ctx context.Context, binary string, args ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, programTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=" + strings.Join(path, ":")}
		if root != "/" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		}
		cmd.WaitDelay = time.Second // for what it leaves behind
		var out bounded
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%s %s: %w: %s", binary, strings.Join(args, " "), err, out.kept)
		}
		return out.kept, nil
	}
}

// bounded keeps the first maxOutput bytes and passes over the rest. It is no bytes.Buffer, whose ReadFrom would know no bound.
type bounded struct{ kept []byte }

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), maxOutput-len(b.kept))]...)
	return len(p), nil
}

// lookPath finds a program as containerd and its shims do: in PATH, then beside another program (empty: nowhere else). It returns ""
// if there is none.
func (n *Node) lookPath(name, beside string) string {
	dirs := slices.Clone(n.Path)
	if beside != "" {
		dirs = append(dirs, path.Dir(beside))
	}
	for _, dir := range dirs {
		if n.executable(path.Join(dir, name)) == nil {
			return path.Join(dir, name)
		}
	}
	return ""
}

var errNotExecutable = errors.New("is not executable")

// executable says why a file cannot be run, or nil.
func (n *Node) executable(file string) error {
	st, err := n.Tree.Stat(file)
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%s %w: mode %#o", file, errNotExecutable, st.Mode().Perm())
	}
	return nil
}

// noexec says whether a file is on a file system that no program can be started from.
func (n *Node) noexec(file string) bool {
	st, err := n.Statfs(file)
	return err == nil && st.Flags&unix.ST_NOEXEC != 0
}

// statfsOn returns what describes file systems of a node.
func statfsOn(t *tree.Tree) func(file string) (unix.Statfs_t, error) {
	return func(file string) (st unix.Statfs_t, err error) {
		reached, release, err := t.Reach(file)
		if err != nil {
			return st, err
		}
		defer release()
		return st, unix.Statfs(reached, &st)
	}
}

// ownedByRoot says whether a file belongs to whom the node's root directory belongs.
func (n *Node) ownedByRoot(st fs.FileInfo) bool {
	root, err := n.Tree.Stat("/")
	if err != nil {
		return false
	}
	file, fileOK := st.Sys().(*syscall.Stat_t)
	dir, dirOK := root.Sys().(*syscall.Stat_t)
	return fileOK && dirOK && file.Uid == dir.Uid
}
