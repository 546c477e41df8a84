// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/containerd/containerdtest"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/cri/servertest"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify"
)

const (
	shimBinary = "/opt/metsuke/v1.0.0/containerd-shim-metsuke-v2"
	guest      = "/opt/metsuke/v1.0.0/metsuke-guest"
	kataShim   = "/opt/kata/bin/containerd-shim-kata-v2"
	qemuConfig = "/opt/kata/share/defaults/kata-containers/configuration-qemu.toml"
	main       = "/etc/containerd/config.toml"
	dropIn     = "/etc/containerd/conf.d/metsuke.toml"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// fake is a node in a directory, with a CRI of its own. A test changes it, and then looks at it.
type fake struct {
	*Node
	t        *testing.T
	dir      string
	server   *servertest.Server
	programs map[string]string                     // what each says of its version
	disks    map[string]func(*unix.Statfs_t)       // what is changed of the file systems of files
	receipt  func(*audit.Receipt, *audit.Identity) // what is changed of the receipts that the shims write
	shim     func(handler string) error            // what a shim says before it starts a container
	inForce  map[string]map[string]any             // handlers, as CRI's Status has them
	silent   error                                 // why CRI does not answer
}

// newFake returns a node with nothing wrong: a handler for runc and one for Kata.
func newFake(t *testing.T) *fake {
	f := &fake{t: t, dir: t.TempDir(), server: servertest.Start(t), disks: map[string]func(*unix.Statfs_t){}}
	for _, dir := range []string{"/run/metsuke", "/var/log/metsuke/audit"} {
		f.mkdir(dir, 0o711)
	}
	for name, text := range map[string]string{
		"/proc/self/mountinfo":              "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
		"/proc/1/comm":                      "systemd\n",
		"/dev/kvm":                          "",
		"/dev/log":                          "",
		"/etc/metsuke/kata.toml": "version = 1\n[delegate]\nruntime_type = \"io.containerd.kata-qemu.v2\"\nbinary = \"" + kataShim + "\"\n" +
			"[delegate.options]\nConfigPath = \"" + qemuConfig + "\"\n",
		qemuConfig: "[hypervisor.qemu]\npath = \"/opt/kata/bin/qemu\"\nkernel = \"/opt/kata/vmlinux\"\nkernel_params = \"\"\n" +
			"[agent.kata]\ndebug_console_enabled = false\n[runtime]\nstatic_sandbox_resource_mgmt = true\n",
		"/opt/kata/vmlinux": "",
		main:                "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
		dropIn: `version = 3
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.metsuke]
  runtime_type = "io.containerd.metsuke.v2"
  pod_annotations = ["metsuke.dev/*"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.metsuke-kata]
  runtime_type = "io.containerd.metsuke.v2"
  privileged_without_host_devices = true
  pod_annotations = ["metsuke.dev/*", "io.katacontainers.*"]
  options = {ConfigPath = "/etc/metsuke/kata.toml"}
`,
	} {
		f.write(name, text, 0o644)
	}
	f.inForce = map[string]map[string]any{
		"metsuke": {"runtimeType": RuntimeType, "PodAnnotations": []string{"metsuke.dev/*"}},
		"metsuke-kata": {"runtimeType": RuntimeType, "PodAnnotations": []string{"metsuke.dev/*", "io.katacontainers.*"},
			"privileged_without_host_devices": true, "options": map[string]any{"ConfigPath": "/etc/metsuke/kata.toml"}},
		"runc":      {"runtimeType": "io.containerd.runc.v2", "options": map[string]any{"SystemdCgroup": false}},
		"kata-qemu": {"runtimeType": "io.containerd.kata-qemu.v2", "options": map[string]any{"ConfigPath": qemuConfig}},
	}
	f.programs = map[string]string{
		shimBinary:                         "containerd-shim-metsuke-v2:\n  Version:  v1.0.0\n  Go version: go1.26\n",
		guest:                              "v1.0.0\n",
		kataShim:                           "containerd-shim-kata-v2 (Golang): id: io.containerd.kata.v2, version: 3.20.0\n",
		"/opt/kata/bin/qemu":               "",
		"/usr/bin/containerd":              "",
		"/usr/bin/containerd-shim-runc-v2": "containerd-shim-runc-v2:\n  Version:  v2.4.2\n",
		"/usr/bin/runc":                    "runc version 1.3.3\nspec: 1.2.1\n",
	}
	for name := range f.programs {
		f.write(name, "", 0o755)
	}
	f.link(shimBinary, "/usr/local/bin/"+ShimName)
	f.chmod(guest, 0o711)
	opened, err := tree.Open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	stand := &containerdtest.Fake{Tree: opened, Version: "2.4.2"}
	f.Node = &Node{
		Tree: opened, Version: "v1.0.0", Path: containerd.SearchPath, Run: f.run, Statfs: f.statfs, Containerd: containerd.NewFake(opened, main, stand.Run),
		Kernel: Kernel{Release: "6.18.0", Notify: notify.Support{WaitKillable: true, SyncWakeUp: true}, Now: now, Synchronised: true},
	}
	f.server.Conditions = []*runtimeapi.RuntimeCondition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}
	f.server.Scenario.OnStart = f.start
	return f
}

// dial connects the node to its CRI, unless that is silent, for the rest of the test.
func (f *fake) dial() {
	f.t.Helper()
	if f.inForce != nil {
		config, err := json.Marshal(map[string]any{"containerd": map[string]any{"runtimes": f.inForce}})
		f.must(err)
		f.server.Config = string(config)
	}
	if f.CRI, f.CRIError = nil, f.silent; f.silent != nil {
		return
	}
	client, err := cri.Dial(f.t.Context(), f.server.Endpoint)
	f.must(err)
	f.t.Cleanup(func() { _ = client.Close() })
	f.CRI = client
}

// look runs checks.
func (f *fake) look(o Options) *Report {
	f.t.Helper()
	f.dial()
	r, err := Run(f.t.Context(), f.Node, o)
	f.must(err)
	return r
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fake) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) mkdir(name string, mode fs.FileMode) {
	f.t.Helper()
	f.must(os.MkdirAll(f.path(name), 0o755))
	f.chmod(name, mode)
}

func (f *fake) write(name, text string, mode fs.FileMode) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.WriteFile(f.path(name), []byte(text), mode))
	f.chmod(name, mode)
}

func (f *fake) append(name, text string) {
	f.t.Helper()
	data, err := os.ReadFile(f.path(name))
	f.must(err)
	f.write(name, string(data)+text, 0o644)
}

func (f *fake) chmod(name string, mode fs.FileMode) {
	f.t.Helper()
	f.must(os.Chmod(f.path(name), mode))
}

func (f *fake) remove(name string) { f.t.Helper(); f.must(os.RemoveAll(f.path(name))) }

func (f *fake) link(target, name string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.Symlink(target, f.path(name)))
}

// run answers as the node's programs do.
func (f *fake) run(_ context.Context, binary string, _ ...string) ([]byte, error) {
	real, err := f.Tree.Follow(binary)
	if err != nil {
		return nil, err
	}
	out, there := f.programs[real]
	if !there {
		return nil, fmt.Errorf("%s: exec format error", binary)
	}
	return []byte(out), nil
}

// statfs describes a tmpfs below /run, and a disk elsewhere.
func (f *fake) statfs(file string) (unix.Statfs_t, error) {
	if _, err := f.Tree.Stat(file); err != nil {
		return unix.Statfs_t{}, err
	}
	st := unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Blocks: 1 << 22, Bavail: 1 << 20, Files: 1 << 20, Ffree: 1 << 19}
	if strings.HasPrefix(file, "/run") {
		st.Type = unix.TMPFS_MAGIC
	}
	for dir, change := range f.disks {
		if file == dir || strings.HasPrefix(file, dir+"/") {
			change(&st)
		}
	}
	return st, nil
}

// start writes the receipt that the shim of a handler would.
func (f *fake) start(pod *runtimeapi.PodSandboxConfig, handler string, container *runtimeapi.ContainerConfig) (err error) {
	if f.shim != nil {
		if err := f.shim(handler); err != nil {
			return err
		}
	}
	cfg := config.Default()
	if options, named := f.inForce[handler]["options"].(map[string]any); named {
		if cfg, err = config.Load(f.path(options["ConfigPath"].(string))); err != nil {
			return err
		}
	} else if data, err := os.ReadFile(f.path(config.DefaultPath)); err == nil {
		if cfg, err = config.Parse(config.DefaultPath, data); err != nil {
			return err
		}
	}
	var documents fs.FS
	if _, err := f.Tree.Stat(cfg.Directories.Profiles); err == nil {
		documents = f.Tree.FS(cfg.Directories.Profiles)
	}
	set, err := profile.Load(documents, cfg.Directories.Profiles)
	if err != nil {
		return err
	}
	m := pod.GetMetadata()
	p, _, err := set.Choose(profile.Pod{Namespace: m.GetNamespace(), Container: container.GetMetadata().GetName(), Image: servertest.Image},
		profile.Defaults{Profile: cfg.DefaultProfile, Floor: cfg.Floor})
	if err != nil || p.Passthrough {
		return err
	}
	program, err := seccomp.Compile(p.Policy(seccomp.NativeArch(), nil))
	if err != nil {
		return err
	}
	identity := audit.Identity{
		Node: "node", Namespace: m.GetNamespace(), Pod: m.GetName(), PodUID: m.GetUid(), Container: container.GetMetadata().GetName(),
		ContainerID: "id", Profile: p.Name, ProfileDigest: p.Digest,
	}
	receipt := &audit.Receipt{
		Version: "v1.0.0", Kernel: "6.18.0", Placement: string(cfg.Supervisor.Placement), Delegate: cfg.Delegate.RuntimeType, Image: servertest.Image,
		SeccompMode: 2, Filters: 1, FilterDigest: program.Digest(), NoNewPrivs: true, OnLoss: string(p.OnLoss),
	}
	for _, check := range cgroups.Compare(p.Limits, nil) {
		receipt.Limits = append(receipt.Limits, audit.ReceiptLimit{Name: check.Resource, Asked: check.Asked, Found: check.Asked})
	}
	if f.receipt != nil {
		f.receipt(receipt, &identity)
	}
	w, err := stream.OpenWriter(stream.Dir(f.path(cfg.Directories.Audit), identity), identity, stream.Options{})
	if err != nil {
		return err
	}
	return errors.Join(w.Append(&audit.Event{Time: now, Kind: audit.KindStart, Receipt: receipt}), w.Close())
}

// otherRecord writes a stream without a receipt.
func (f *fake) otherRecord(pod *runtimeapi.PodSandboxConfig, _ string, container *runtimeapi.ContainerConfig) error {
	m := pod.GetMetadata()
	identity := audit.Identity{Namespace: m.GetNamespace(), Pod: m.GetName(), PodUID: m.GetUid(), Container: container.GetMetadata().GetName()}
	w, err := stream.OpenWriter(stream.Dir(f.path(config.Default().Directories.Audit), identity), identity, stream.Options{})
	if err != nil {
		return err
	}
	return errors.Join(w.Append(&audit.Event{Time: now, Kind: audit.KindOOM, OOM: &audit.OOM{Count: 1}}), w.Close())
}

// uids are those of canaries.
var uids = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

func golden(t *testing.T, name, got string) {
	t.Helper()
	goldentest.Equal(t, filepath.Join("testdata", name), got)
}
