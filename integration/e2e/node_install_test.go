// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/install"
	"metsuke.dev/metsuke/node/tree"
)

// A standService restarts the stand's containerd, which is no unit of a systemd.
type standService struct {
	install.Service
	h        *harness
	restarts int
	fails    bool // the next start, as of a containerd that does not come up
}

func (s *standService) Restartable() error { return nil }

func (s *standService) Restart(ctx context.Context) error {
	s.restarts++
	if err := s.h.StopContainerd(unix.SIGTERM); err != nil {
		return err
	}
	if s.fails {
		s.fails = false
		return errors.New("played: containerd did not come up")
	}
	return s.h.StartContainerd(ctx)
}

// installed is the machine as a node, with the stand's containerd; what is written to it is gone after the test.
func (h *harness) installed() (*install.Node, *standService) {
	h.t.Helper()
	for _, dir := range []string{"/etc", "/opt", "/usr/local/bin", "/var/log"} {
		h.shelter(dir)
	}
	root, err := tree.Open("/")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = root.Close() })
	binary, err := stand.Tool(h.Version.Set(), "containerd")
	if err != nil {
		h.t.Fatal(err)
	}
	s := &standService{h: h, Service: install.NewService(root, h.Endpoint(), nil)}
	return &install.Node{
		Tree: root, Containerd: containerd.New(root, binary, filepath.Join(h.Dir, "config.toml")), Service: s,
		Timeout: 3 * time.Minute, Say: func(line string) { h.t.Log(line) },
	}, s
}

// shelter puts a layer over a directory of the machine that takes what is written to it.
func (h *harness) shelter(dir string) {
	h.t.Helper()
	above := h.t.TempDir()
	if err := unix.Mount("tmpfs", above, "tmpfs", 0, ""); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := unix.Unmount(above, unix.MNT_DETACH); err != nil {
			h.t.Error(err)
		}
	})
	for _, part := range []string{"/upper", "/work"} {
		if err := os.Mkdir(above+part, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+above+"/upper,workdir="+above+"/work"); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			h.t.Error(err)
		}
	})
}

// files are the files below directories, by path, with mode and content or target.
func files(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range dirs {
		err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			content, target := []byte(nil), ""
			switch {
			case info.Mode().IsRegular():
				content, err = os.ReadFile(path)
			case info.Mode()&os.ModeSymlink != 0:
				target, err = os.Readlink(path)
			}
			found[path] = info.Mode().String() + " " + target + string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// Installing, upgrading and removing Metsuke disturbs no pod, a containerd that does not come up gets its files back, and in the end
// the node is as it was.
func TestNodeInstall(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		node, service := h.installed()
		places := []string{filepath.Join(h.Dir, "config.toml"), filepath.Join(h.Dir, "conf.d"), install.Home, install.Etc, "/usr/local/bin"}
		was := files(t, places...)
		isAsItWas := func() {
			t.Helper()
			is := files(t, places...)
			for path := range is {
				if is[path] != was[path] {
					t.Errorf("%s is not as it was:\n%s\nit was:\n%s", path, is[path], was[path])
				}
			}
			if len(is) != len(was) {
				t.Errorf("%d files, there were %d", len(is), len(was))
			}
		}
		running := []*container{h.pod(stand.PodConfig{}).idle(), h.pod(stand.PodConfig{Handler: baseline}).idle()}
		undisturbed := func() {
			t.Helper()
			for _, c := range running {
				c.exec("true")
			}
		}
		source := install.Source{Dir: filepath.Dir(stand.Metsuke("metsuke")), Version: "v1"}

		service.fails = true
		if _, err := node.Install(h.ctx, source); err == nil || !strings.Contains(err.Error(), "played") || !strings.Contains(err.Error(), "again as it was") {
			t.Fatalf("containerd does not come up: %v", err)
		}
		undisturbed()
		isAsItWas()

		if _, err := node.Install(h.ctx, source); err != nil {
			t.Fatal(err)
		}
		undisturbed()
		handler := "metsuke-" + delegate.Name
		old := h.pod(stand.PodConfig{Handler: handler})
		running = append(running, old.idle())
		if status := running[2].exec("cat", "/proc/self/status"); field(status, "Seccomp") != "2" {
			t.Errorf("a pod of the new handler:\n%s", status)
		}
		if code, r := h.doctor([]string{handler}); code != 0 {
			t.Errorf("the doctor, after an installation: %+v", r.Findings)
		}

		restarts := service.restarts
		source.Version = "v2"
		if _, err := node.Install(h.ctx, source); err != nil {
			t.Fatal(err)
		}
		if service.restarts != restarts {
			t.Errorf("an upgrade restarted containerd")
		}
		undisturbed()
		fresh := h.pod(stand.PodConfig{Handler: handler})
		running = append(running, fresh.idle())
		status, err := node.Status(h.ctx, source)
		if err != nil || !status.Installed || len(status.Versions) != 2 {
			t.Fatalf("%+v, %v", status, err)
		}
		for _, v := range status.Versions {
			if len(v.Processes) == 0 {
				t.Errorf("no process runs version %s, and a pod of it does", v.Name)
			}
		}

		if _, err := node.Uninstall(h.ctx, false); err == nil || !strings.Contains(err.Error(), fresh.Config.GetMetadata().GetName()) {
			t.Fatalf("under pods: %v", err)
		}
		undisturbed()
		running = running[:2]
		fresh.remove()
		old.remove()
		h.eventually("the end of their shims", func() error { // which may come after CRI's answer
			if left := append(fresh.Shims(ourShim), old.Shims(ourShim)...); len(left) > 0 {
				return fmt.Errorf("processes %v", left)
			}
			return nil
		})
		if left, err := node.Uninstall(h.ctx, true); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
		undisturbed()
		isAsItWas()
	})
}
