// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/node/containerd"
)

// A node that has nothing is still one that can be looked at.
func TestOpen(t *testing.T) {
	n, err := Open(t.Context(), Place{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if n.CRI != nil || n.CRIError == nil || n.Containerd != nil || n.ContainerdError == nil {
		t.Errorf("%+v", n)
	}
	r, err := Run(t.Context(), n, Options{})
	if err != nil || r.Healthy() {
		t.Errorf("%v, %v", r, err)
	}
	whole(t, r)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), Place{Root: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a root that is not there was opened")
	}
}

// The process that answers is asked for its PATH and its files: this one.
func TestProcess(t *testing.T) {
	f := newFake(t)
	f.dial()
	f.Path, f.Containerd = nil, nil
	if err := f.findContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if f.Containerd.Binary != exe || f.Containerd.Config != main || !slices.Equal(f.Path, filepath.SplitList(os.Getenv("PATH"))) {
		t.Errorf("%s, %s, %q", f.Containerd.Binary, f.Containerd.Config, f.Path)
	}
	f.CRI, f.CRIError = nil, os.ErrNotExist
	if err := f.findContainerd(t.Context()); err == nil || !slices.Equal(f.Path, containerd.SearchPath) {
		t.Errorf("%v, %q", err, f.Path)
	}
	if _, err := readProcess(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestThisKernel(t *testing.T) {
	k := ThisKernel()
	if k.Release == "" || k.NotifyError != nil || time.Since(k.Now) > time.Hour {
		t.Errorf("%+v", k)
	}
}

func TestRunOn(t *testing.T) {
	run := runOn("/", []string{"/usr/local/sbin", "/usr/bin", "/bin"})
	out, err := run(t.Context(), "/bin/sh", "-c", "echo out; echo err >&2; echo $PATH; pwd")
	if err != nil || !strings.HasPrefix(string(out), "out\nerr\n/usr/local/sbin:/usr/bin:/bin\n") || !strings.HasSuffix(string(out), "\n/\n") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run(t.Context(), "/bin/sh", "-c", "head -c 1000000 /dev/zero"); err != nil || len(out) != maxOutput {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if _, err := run(t.Context(), "/bin/sh", "-c", "echo why; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Error(err)
	}
}

func TestStatfsOn(t *testing.T) {
	f := newFake(t)
	statfs := statfsOn(f.Tree)
	var want unix.Statfs_t
	if err := unix.Statfs(f.dir, &want); err != nil {
		t.Fatal(err)
	}
	f.link("/run", "/elsewhere")
	if got, err := statfs("/elsewhere/metsuke"); err != nil || got.Type != want.Type || got.Fsid != want.Fsid {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := statfs("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
