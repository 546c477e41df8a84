// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/node/containerd/containerdtest"
	"metsuke.dev/metsuke/node/tree"
)

// A layout is a node's configuration as it can be found.
type layout struct {
	name    string
	version string
	files   map[string]string // by path of the node; no main file: there is none
	dropIn  string            // where ours goes
}

const kind2 = `# explicitly use v2 config format
version = 2

[proxy_plugins]
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "/etc/containerd/cri-base.json"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
`

var layouts = []layout{
	{"2-no-main-file", "2.4.2", nil, "/etc/containerd/conf.d/metsuke.toml"},
	{"2-imports-conf.d", "2.4.2", map[string]string{
		DefaultConfig:                       "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[debug]\n  level = \"info\"\n",
		"/etc/containerd/conf.d/other.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.other]\nruntime_type = \"other\"\n",
	}, "/etc/containerd/conf.d/metsuke.toml"},
	{"2-imports-relative", "2.4.2", map[string]string{
		DefaultConfig: "imports = ['certs.toml', 'drop/*.toml']\nversion = 3\n", "/etc/containerd/certs.toml": "version = 3\n",
	}, "/etc/containerd/drop/metsuke.toml"},
	{"2-imports-other", "2.4.2", map[string]string{
		DefaultConfig: "version = 3\nimports = [ # Kata's\n  '/opt/kata/containerd/config.d/kata-deploy.toml', # ]\n]\n[grpc]\n",
		"/opt/kata/containerd/config.d/kata-deploy.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata-qemu]\nruntime_type = \"io.containerd.kata-qemu.v2\"\n",
	}, "/etc/containerd/conf.d/metsuke.toml"},
	{"2-imports-nothing", "2.4.2", map[string]string{DefaultConfig: "version = 3\nimports = []\n"}, "/etc/containerd/conf.d/metsuke.toml"},
	{"2-no-imports", "2.4.2", map[string]string{DefaultConfig: "# ours\nroot = \"/data\"\nversion = 3"}, "/etc/containerd/conf.d/metsuke.toml"},
	{"2-empty-main-file", "2.4.2", map[string]string{DefaultConfig: ""}, "/etc/containerd/conf.d/metsuke.toml"},
	{"2-main-file-of-version-2", "2.4.2", map[string]string{DefaultConfig: kind2}, "/etc/containerd/conf.d/metsuke.toml"},
	{"1.7", "1.7.35", map[string]string{DefaultConfig: kind2}, ""},
	{"1.7-no-newline", "1.7.35", map[string]string{DefaultConfig: strings.TrimSuffix(kind2, "\n")}, ""},
	{"1.7-no-handlers", "1.7.35", map[string]string{DefaultConfig: "version = 2\n"}, ""},
	{"1.7-no-main-file", "1.7.35", nil, ""},
	{"1.7-imports", "1.7.35", map[string]string{
		DefaultConfig: "imports = ['/etc/containerd/extra/*.toml']\n" + kind2, "/etc/containerd/extra/x.toml": "version = 2\n[debug]\nlevel = 'debug'\n",
	}, ""},
}

func handlers() map[string]Table {
	return map[string]Table{
		"metsuke-runc": {
			"runtime_type": "io.containerd.metsuke.v2", "runtime_path": "/opt/metsuke/current/shim", "pod_annotations": []string{"metsuke.dev/*", `a"\b`},
			"base_runtime_spec": "/etc/containerd/cri-base.json", "privileged_without_host_devices": true, "cni_max_conf_num": int64(1),
			"options": Table{"ConfigPath": "/etc/metsuke/metsuke-runc.toml"},
		},
		"metsuke-kata": {"runtime_type": "io.containerd.metsuke.v2"},
	}
}

func ours(name string) bool { return strings.HasPrefix(name, "metsuke-") }

// node makes a containerd on these files.
func node(t *testing.T, l layout) (*Containerd, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range l.files {
		put(t, dir+name, text)
	}
	if err := os.MkdirAll(dir+"/scratch", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/etc/containerd/conf.d", 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	fake := &containerdtest.Fake{Tree: root, Version: l.version}
	return NewFake(root, DefaultConfig, fake.Run), dir
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// change makes the files with handlers of what the node has.
func change(t *testing.T, c *Containerd, handlers map[string]Table) (before, after Files, dumped Dump) {
	t.Helper()
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dumped, err = c.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := dumped.Handlers()
	if err != nil {
		t.Fatal(err)
	}
	if before, err = c.Read(); err != nil {
		t.Fatal(err)
	}
	clean, err := c.Without(before)
	if err != nil {
		t.Fatal(err)
	}
	if after, err = c.With(clean, v, handlers, all); err != nil {
		t.Fatal(err)
	}
	return before, after, dumped
}

// In each layout the handlers come to what is there, nothing else changes, and taking them out leaves every byte as it was.
func TestLayouts(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			c, dir := node(t, l)
			before, after, was := change(t, c, handlers())
			checked, err := c.Check(t.Context(), after, "/scratch")
			if err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(dir + "/scratch"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if l.dropIn != "" && after.DropIn != l.dropIn || (after.DropInText == "") != (l.dropIn == "") {
				t.Errorf("drop-in %s, want %s", after.DropIn, l.dropIn)
			}
			golden(t, l.name, fmt.Sprintf("==> %s\n%s\n==> %s\n%s", DefaultConfig, after.Main, after.DropIn, after.DropInText))
			put(t, dir+DefaultConfig, after.Main)
			if after.DropInText != "" {
				put(t, dir+after.DropIn, after.DropInText)
			}
			is, err := c.Dump(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for name, d := range map[string]Dump{"checked": checked, "written": is} {
				if diff := Differences(was, d, ours); len(diff) > 0 {
					t.Errorf("%s: more than ours changes: %v", name, diff)
				}
				got, err := d.Handlers()
				if err != nil || get(got["metsuke-runc"], "options", "ConfigPath") != "/etc/metsuke/metsuke-runc.toml" || got["metsuke-kata"] == nil {
					t.Errorf("%s: %v, %v", name, got, err)
				}
			}
			// Again: the same.
			_, again, _ := change(t, c, handlers())
			if diff := cmp.Diff(after, again); diff != "" {
				t.Errorf("the second time:\n%s", diff)
			}
			back, err := c.Without(after)
			if err != nil {
				t.Fatal(err)
			}
			if back.Main != before.Main || back.MainExists != before.MainExists || back.DropInText != "" {
				t.Errorf("taken out:\n%s", cmp.Diff(before, back))
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	goldentest.Equal(t, "testdata/"+name+".golden", got)
}

// What the operator does to the file meanwhile stays, ours goes.
func TestOthersChangesStay(t *testing.T) {
	for name, c := range map[string]struct{ main, version, from, to string }{
		"a line before ours":       {"version = 3\n", "2.4.2", "imports", "root = '/data'\nimports"},
		"another import after":     {"version = 3\nimports = ['/a']\n", "2.4.2", "'/a'", "'/a', '/b'"},
		"another import first":     {"version = 3\nimports = ['/a']\n", "2.4.2", "[", "['/b', "},
		"ours is the last":         {"version = 3\nimports = ['/a']\n", "2.4.2", `"/etc/containerd/conf.d/metsuke.*toml", '/a'`, `'/a', "/etc/containerd/conf.d/metsuke.*toml"`},
		"an import in our line":    {"version = 3\n", "2.4.2", `toml"]`, `toml", '/b']`},
		"a table after our block":  {"version = 2", "1.7.35", "# metsuke:end\n", "# metsuke:end\n[debug]\n"},
		"a table before our block": {"version = 2\n", "1.7.35", "# metsuke:begin", "[debug]\n# metsuke:begin"},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := node(t, layout{version: c.version, files: map[string]string{DefaultConfig: c.main, "/a": ""}})
			_, after, _ := change(t, node, handlers())
			if !strings.Contains(after.Main, c.from) {
				t.Fatalf("no %q in:\n%s", c.from, after.Main)
			}
			after.Main = strings.Replace(after.Main, c.from, c.to, 1)
			back, err := node.Without(after)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "changed/"+strings.ReplaceAll(name, " ", "-"), back.Main)
		})
	}
}

// What the operator made of ours is not taken away.
func TestChangedByOthers(t *testing.T) {
	c, _ := node(t, layout{version: "1.7.35", files: map[string]string{DefaultConfig: kind2}})
	_, after, _ := change(t, c, handlers())
	for name, f := range map[string]Files{
		"block":   {Main: strings.Replace(after.Main, "metsuke.v2", "other.v2", 1), MainExists: true},
		"half":    {Main: strings.Replace(after.Main, "# metsuke:end\n", "", 1), MainExists: true},
		"drop-in": {DropIn: "/d", DropInText: Seal("a = 1\n") + "b = 2\n"},
		"theirs":  {DropIn: "/d", DropInText: "a = 1\n"},
	} {
		back, err := c.Without(f)
		if err == nil || back != f {
			t.Errorf("%s: was taken out: %v\n%s", name, err, cmp.Diff(f, back))
		}
	}
}

func TestDifferences(t *testing.T) {
	c, dir := node(t, layout{version: "2.4.2", files: map[string]string{DefaultConfig: "version = 3\n"}})
	before, err := c.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir+DefaultConfig, "version = 3\nroot = \"/data\"\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\nsnapshotter = \"x\"\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.metsuke-x]\n")
	after, err := c.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"plugins.io.containerd.cri.v1.runtime.containerd.runtimes.runc.snapshotter", "root"}
	if diff := cmp.Diff(want, Differences(before, after, ours)); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		layout
		want string
	}{
		"not TOML":      {layout{version: "2.4.2", files: map[string]string{DefaultConfig: "version = \n"}}, DefaultConfig},
		"imports":       {layout{version: "2.4.2", files: map[string]string{DefaultConfig: "imports = 3\n"}}, "imports is not an array"},
		"empty drop-in": {layout{version: "2.4.2", files: map[string]string{"/etc/containerd/conf.d/metsuke.toml": ""}}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := node(t, c.layout)
			if _, err := node.Read(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	old, _ := node(t, layout{version: "1.6.9"})
	if _, err := old.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("1.6: %v", err)
	}
	c, _ := node(t, layout{version: "1.7.35", files: map[string]string{DefaultConfig: "[plugins.cri]\n"}})
	f, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.With(f, Version{Major: 1, Minor: 7}, handlers(), nil); err == nil || !strings.Contains(err.Error(), "version 0") {
		t.Errorf("a file of version 1: %v", err)
	}
	off, _ := node(t, layout{version: "1.7.35", files: map[string]string{DefaultConfig: "version = 2\ndisabled_plugins = [\"cri\"]\n"}})
	d, err := off.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Handlers(); err == nil || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("CRI off: %v", err)
	}
}

func TestUnit(t *testing.T) {
	unit := map[string]any{"LoadState": "loaded", "ActiveState": "active", "FragmentPath": "/u"}
	service := func(killMode string, argv ...string) map[string]any {
		return map[string]any{"KillMode": killMode, "ExecStart": [][]any{{argv[0], argv, false}}}
	}
	for want, argv := range map[string][]string{
		DefaultConfig: {"/usr/bin/containerd"},
		"/a":          {"/usr/bin/containerd", "--log-level", "debug", "--config", "/a"},
		"/b":          {"/usr/bin/containerd", "-c", "/b"},
		"/c":          {"/usr/bin/containerd", "--config=/c"},
	} {
		u, err := parseUnit(unit, service("process", argv...))
		if err != nil || u.Config != want || u.Binary != argv[0] || !u.Active || u.CheckKillMode() != nil {
			t.Errorf("%q: %+v, %v", argv, u, err)
		}
	}
	for _, mode := range []string{"control-group", "mixed", ""} {
		u, err := parseUnit(unit, service(mode, "/usr/bin/containerd"))
		if err != nil || u.CheckKillMode() == nil {
			t.Errorf("KillMode %q: %v", mode, err)
		}
	}
	for name, argv := range map[string][]string{"variable": {"/c", "-c", "/$X"}, "relative": {"/c", "-c", "x"}, "no value": {"/c", "-c=", ""}} {
		if _, err := parseUnit(unit, service("process", argv...)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := parseUnit(map[string]any{"LoadState": "not-found"}, nil); err == nil || !strings.Contains(err.Error(), "--containerd") {
		t.Errorf("no unit: %v", err)
	}
	if _, err := parseUnit(unit, map[string]any{}); err == nil {
		t.Error("a unit without a command was taken")
	}
}

// Going back to what there was of ours leaves what the operator has changed since.
func TestRestore(t *testing.T) {
	for name, c := range map[string]struct{ version, main, changed string }{
		"import":                {"2.4.2", "version = 3\n", "version = 3\nroot = '/data'\n"},
		"import in an array":    {"2.4.2", "version = 3\nimports = ['/a']\n", "version = 3\nimports = ['/a', '/b']\n"},
		"block":                 {"1.7.35", kind2, kind2 + "[debug]\nlevel = 'info'\n"},
		"nothing changed since": {"1.7.35", kind2, kind2},
	} {
		t.Run(name, func(t *testing.T) {
			on := func(main string, handlers map[string]Table) (*Containerd, Files) {
				node, _ := node(t, layout{version: c.version, files: map[string]string{DefaultConfig: main, "/a": "", "/b": ""}})
				_, after, _ := change(t, node, handlers)
				return node, after
			}
			old := map[string]Table{"metsuke-old": {"runtime_type": "io.containerd.metsuke.v2"}}
			_, before := on(c.main, old)
			node, now := on(c.changed, handlers())
			_, want := on(c.changed, old)
			got, err := node.Restore(now, before)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			// And to nothing of ours.
			got, err = node.Restore(now, Files{Main: c.main, MainExists: true})
			if err != nil || got.Main != c.changed || got.DropInText != "" {
				t.Errorf("to nothing: %v\n%s", err, cmp.Diff(c.changed, got.Main))
			}
		})
	}
}
