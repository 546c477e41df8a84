// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

const mainOfVersion2 = `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "/etc/containerd/cri-base.json"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
`

// In a node's root that is not ours, each containerd reads the handlers from where the command put them, and the other handlers as before; and
// the files are as they were when they have been taken out. No containerd runs: it is asked what it reads.
func TestNodeLayouts(t *testing.T) {
	for _, version := range stand.Versions {
		layouts := map[string]map[string]string{
			"no-main-file": {},
			"version-2":    {"config.toml": mainOfVersion2},
			"no-handlers":  {"config.toml": "version = 2\nroot = \"/data\""},
		}
		if version == stand.V2 {
			layouts["version-3"] = map[string]string{"config.toml": "version = 3\n[debug]\n  level = \"info\"\n"}
			layouts["empty"] = map[string]string{"config.toml": "# nothing\n"}
			layouts["conf.d"] = map[string]string{
				"config.toml": "version = 3\nimports = [\"conf.d/*.toml\"]\n",
				"conf.d/x.toml": "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.kata-qemu]\n" +
					"  runtime_type = \"io.containerd.kata-qemu.v2\"\n  runtime_path = \"/usr/local/bin/containerd-shim-runc-v2\"\n",
			}
		}
		for _, name := range slices.Sorted(maps.Keys(layouts)) {
			t.Run("containerd-"+string(version)+"/"+name, func(t *testing.T) { testLayout(t, version, layouts[name]) })
		}
	}
}

func testLayout(t *testing.T, version stand.Version, layout map[string]string) {
	root := t.TempDir()
	etc := filepath.Join(root, "etc", "containerd")
	for _, dir := range []string{etc, etc + "/conf.d", root + "/usr/local/bin", root + "/opt", root + "/run", root + "/proc/1"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2"} {
		tool, err := stand.Tool(version.Set(), name)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "usr/local/bin", name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/bin/sh", root+"/proc/1/exe"); err != nil { // a node's processes, none of which is Metsuke's
		t.Fatal(err)
	}
	for name, text := range layout {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	was := files(t, etc)
	before := handlersRead(t, root)
	metsuke(t, 3, "node", "install", "--root", root, "--containerd", "/usr/local/bin/containerd", "--no-restart")
	want := append(slices.Clone(before), "metsuke-runc")
	if slices.Contains(before, "kata-qemu") {
		want = append(want, "metsuke-kata-qemu")
	}
	slices.Sort(want)
	if got := handlersRead(t, root); !slices.Equal(got, want) {
		t.Errorf("containerd reads the handlers %v, want %v", got, want)
	}
	metsuke(t, 3, "node", "uninstall", "--root", root, "--containerd", "/usr/local/bin/containerd", "--no-restart")
	if is := files(t, etc); !maps.Equal(is, was) {
		t.Errorf("is %v\nwas %v", is, was)
	}
}

// metsuke runs the command; it must exit with that code.
func metsuke(t *testing.T, code int, args ...string) {
	t.Helper()
	out, err := exec.Command(stand.Metsuke("metsuke"), args...).CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Fatalf("metsuke %s: %v, want exit code %d\n%s", strings.Join(args, " "), err, code, out)
	}
}

// handlersRead are the names of the handlers that the containerd below root reads, sorted.
func handlersRead(t *testing.T, root string) []string {
	t.Helper()
	args := []string{root, "/usr/local/bin/containerd", "config", "dump"}
	if _, err := os.Stat(filepath.Join(root, "etc/containerd/config.toml")); err != nil {
		args[3] = "default" // 1.7 refuses to dump without a main file
	}
	out, err := exec.Command("chroot", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		_, name, ok := strings.Cut(strings.TrimSpace(line), ".containerd.runtimes.")
		if name = strings.TrimSuffix(name, "]"); ok && !strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
