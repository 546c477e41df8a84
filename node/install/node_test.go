// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/containerd/containerdtest"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/tree"
)

const mainV2 = `# kind's stock node
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "/etc/containerd/cri-base.json"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
    BinaryName = "/usr/local/sbin/runc"
`

const kataDeploy = `version = 3
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-qemu]
  runtime_type = "io.containerd.kata-qemu.v2"
  runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
  privileged_without_host_devices = true
  pod_annotations = ["io.katacontainers.*"]
  snapshotter = "nydus"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-qemu.options]
    ConfigPath = "/opt/kata/share/defaults/kata-containers/runtimes/qemu/configuration-qemu.toml"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-qemu-debug]
  runtime_type = "io.containerd.kata-qemu-debug.v2"
  runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-clh]
  runtime_type = "io.containerd.kata-clh.v2"
  runtime_path = "/opt/kata/bin/none"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]
  runtime_type = "io.containerd.kata.v2"
  cgroup_writable = true
`

// layouts are nodes by name: containerd's version, then files by path.
var layouts = map[string]map[string]string{
	"2-no-main-file": {"": "2.4.2"},
	"2-conf.d":       {"": "2.4.2", containerd.DefaultConfig: "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n", "/etc/containerd/conf.d/a.toml": "version = 3\n"},
	"2-version-2":    {"": "2.4.2", containerd.DefaultConfig: mainV2},
	"2-kata": {"": "2.4.2", containerd.DefaultConfig: "version = 3\nimports = [\"/opt/kata/containerd/config.d/kata-deploy.toml\"]\n",
		"/opt/kata/containerd/config.d/kata-deploy.toml": kataDeploy,
		"/opt/kata/bin/containerd-shim-kata-v2":          "kata", "/usr/local/bin/containerd-shim-kata-v2": "kata"},
	"1.7":              {"": "1.7.35", containerd.DefaultConfig: strings.TrimSuffix(mainV2, "\n")},
	"1.7-no-main-file": {"": "1.7.35"},
	"2-no-opt":         {"": "2.4.2", "-/opt": ""},
}

// A lab is a node of files, with a stand-in for its containerd.
type lab struct {
	t       *testing.T
	dir     string
	fake    *containerdtest.Fake
	service *fakeService
	source  string // directory of binaries
	said    []string
	node    *Node // of the last at
}

func newLab(t *testing.T, layout map[string]string) *lab {
	t.Helper()
	l := &lab{t: t, dir: memoryDir(t), source: t.TempDir()}
	for _, dir := range []string{"/opt", "/run", "/usr/local/bin", "/proc/1", "/var/log"} {
		if _, without := layout["-"+dir]; !without {
			l.mkdir(dir)
		}
	}
	l.write("/usr/local/bin/containerd-shim-runc-v2", "runc", 0o755)
	l.write("/usr/sbin/init", "init", 0o755)
	l.link(l.dir+"/usr/sbin/init", "/proc/1/exe")
	for name, text := range layout {
		if strings.HasPrefix(name, "/") {
			mode := fs.FileMode(0o640)
			if strings.Contains(name, "/bin/") {
				mode = 0o755
			}
			l.write(name, text, mode)
		}
	}
	l.build("v1")
	l.fake = &containerdtest.Fake{Version: layout[""]}
	l.service = &fakeService{lab: l}
	l.at(nil)
	if err := l.service.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.service.restarts = 0
	return l
}

// memoryDir is a directory that goes with the test. It is in memory where that can be had: hundreds of installations wait for the disk
// as often as each has to (fsync).
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "metsuke-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (l *lab) mkdir(name string) {
	l.t.Helper()
	if err := os.MkdirAll(l.dir+name, 0o755); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) write(name, text string, mode fs.FileMode) {
	l.t.Helper()
	l.mkdir(filepath.Dir(name))
	if err := os.WriteFile(l.dir+name, []byte(text), mode); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) link(target, name string) {
	l.t.Helper()
	if err := os.Symlink(target, l.dir+name); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) read(name string) string {
	l.t.Helper()
	data, err := os.ReadFile(l.dir + name)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data)
}

// build makes other binaries to install.
func (l *lab) build(content string) {
	l.t.Helper()
	for name := range Binaries {
		if err := os.WriteFile(filepath.Join(l.source, name), []byte(name+" "+content), 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
}

// at is a new process on the node. stop is called before each step.
func (l *lab) at(stop func(step string)) *Node {
	l.t.Helper()
	if l.node != nil {
		_ = l.node.Tree.Close()
	}
	t, err := tree.Open(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = t.Close() })
	l.fake.Tree = t
	l.node = &Node{
		Tree: t, Containerd: containerd.NewFake(t, containerd.DefaultConfig, l.fake.Run), Service: l.service,
		Timeout: time.Minute, Say: func(line string) { l.said = append(l.said, line) }, stop: stop,
	}
	return l.node
}

func (l *lab) install(version string) (*Plan, error) {
	l.t.Helper()
	return l.at(nil).Install(l.t.Context(), Source{l.source, version})
}

func (l *lab) mustInstall(version string) *Plan {
	l.t.Helper()
	p, err := l.install(version)
	if err != nil {
		l.t.Fatal(err)
	}
	s, err := l.at(nil).Status(l.t.Context(), Source{l.source, version})
	if err != nil || !s.Installed {
		l.t.Fatalf("not as installed: %+v, %v", s, err)
	}
	return p
}

func (l *lab) mustUninstall() {
	l.t.Helper()
	if left, err := l.at(nil).Uninstall(l.t.Context(), false); err != nil || len(left) > 0 {
		l.t.Fatalf("left %v, %v", left, err)
	}
}

// death is what a process ends of in these tests.
type death struct{}

// killed runs an installer that dies before its nth step, and reports whether it came so far. What it was writing then is left.
func (l *lab) killed(n int, do func(*Node) error) (dead bool) {
	l.t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(death); !ok {
				panic(r)
			}
			dead = true
			for _, dir := range []string{"/etc/containerd", "/etc/containerd/conf.d", "/etc/metsuke", "/opt/metsuke", "/usr/local/bin", stateDir} {
				if _, err := os.Stat(l.dir + dir); err == nil {
					l.write(dir+"/.half.metsuke-unfinished", "half", 0o600)
				}
			}
			if _, err := os.Stat(l.dir + stateDir); err == nil {
				l.write(staged+"/half", "half", 0o600)
			}
			l.write(scratchPrefix+"x/config.toml", "half", 0o600)
			l.write(lockFile, "", 0o600)
		}
	}()
	step := 0
	if err := do(l.at(func(string) {
		if step == n {
			panic(death{})
		}
		step++
	})); err != nil {
		l.t.Fatal(err)
	}
	return false
}

// snapshot is every file of the node with its mode and content.
func (l *lab) snapshot() map[string]string {
	l.t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(l.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(name)
			what += " " + target
		case d.Type().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			what += " " + string(data)
		}
		found[strings.TrimPrefix(name, l.dir)] = what
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return found
}

func (l *lab) same(was map[string]string) {
	l.t.Helper()
	if diff := cmp.Diff(was, l.snapshot()); diff != "" {
		l.t.Errorf("the node is not as it was (-was +is):\n%s", diff)
	}
}

// A fakeService is containerd as it runs: what it read when it was started last.
type fakeService struct {
	lab      *lab
	inForce  map[string]cri.Handler
	down     bool
	pods     []cri.Pod
	restarts int
	refuse   func(handlers map[string]cri.Handler) error // whether a new configuration keeps it from starting
}

func (s *fakeService) Handlers(context.Context) (map[string]cri.Handler, error) {
	if s.down {
		return nil, errors.New("connection refused")
	}
	return maps.Clone(s.inForce), nil
}

func (s *fakeService) Pods(context.Context) ([]cri.Pod, error) {
	if s.down {
		return nil, errors.New("connection refused")
	}
	return s.pods, nil
}

func (s *fakeService) Restartable() error { return nil }

func (s *fakeService) Restart(ctx context.Context) error {
	s.restarts++
	s.down = true
	dump, err := s.lab.node.Containerd.Dump(ctx)
	if err != nil {
		return err
	}
	tables, err := dump.Handlers()
	if err != nil {
		return err
	}
	handlers := map[string]cri.Handler{}
	for name, t := range tables {
		options, _ := t["options"].(map[string]any)
		handlers[name] = cri.Handler{
			RuntimeType: text(t, "runtime_type"), RuntimePath: text(t, "runtime_path"), Options: options,
			PodAnnotations: texts(t["pod_annotations"]), Snapshotter: text(t, "snapshotter"), BaseRuntimeSpec: text(t, "base_runtime_spec"),
			PrivilegedWithoutHostDevices: t["privileged_without_host_devices"] == true, CgroupWritable: t["cgroup_writable"] == true,
		}
	}
	if s.refuse != nil {
		if err := s.refuse(handlers); err != nil {
			return err
		}
	}
	s.inForce, s.down = handlers, false
	return nil
}

func refuseOurs(handlers map[string]cri.Handler) error {
	for name := range handlers {
		if strings.HasPrefix(name, "metsuke-") {
			return fmt.Errorf("job failed: handler %s", name)
		}
	}
	return nil
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	goldentest.Equal(t, "testdata/"+name+".golden", got)
}

// names are the keys of a map, sorted.
func names[V any](m map[string]V) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data) + "\n"
}
