// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/mirror"
)

func TestUninstallRefusesUnderPods(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	l.mustInstall("v1")
	was := l.snapshot()
	l.service.pods = []cri.Pod{
		{Namespace: "a", Name: "plain", Handler: "runc", Ready: true},
		{Namespace: "a", Name: "ended", Handler: "metsuke-runc"},
		{Namespace: "a", Name: "b\x1b[2J", Handler: "metsuke-runc", Ready: true},
	}
	_, err := l.at(nil).Uninstall(t.Context(), false)
	if err == nil || !strings.HasSuffix(err.Error(), `: "a/b\x1b[2J" (metsuke-runc); move their workloads to another RuntimeClass first`) {
		t.Errorf("%v", err)
	}
	l.same(was)
	s, err := l.at(nil).Status(t.Context(), Source{l.source, "v1"})
	if err != nil || len(s.Handlers) != 1 || s.Handlers[0].Pods != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// What operators have written or changed stays theirs.
func TestOperatorsFiles(t *testing.T) {
	own := "version = 1\ndefault_profile = \"baseline\"\n"
	l := newLab(t, layouts["2-conf.d"])
	l.write("/etc/metsuke/config.toml", own, 0o600)
	l.write("/etc/metsuke/profiles.d/x.yaml", "", 0o644)
	l.mkdir("/var/lib")
	was := l.snapshot()
	l.mustInstall("v1")
	// One changes a file of ours, then another installs anew.
	changed := l.read("/etc/metsuke/metsuke-runc.toml") + "\n[deadlines]\narmed = \"30s\"\n"
	l.write("/etc/metsuke/metsuke-runc.toml", changed, 0o644)
	p := l.mustInstall("v1")
	if !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, "metsuke-runc.toml was written or changed") }) {
		t.Errorf("notes: %q", p.Notes)
	}
	l.write("/var/log/metsuke/audit/x", "stream", 0o600)
	l.write("/var/lib/metsuke/audit-key.pem", "key", 0o600)
	left, err := l.at(nil).Uninstall(t.Context(), false)
	want := []string{"/etc/metsuke/config.toml", "/etc/metsuke/metsuke-runc.toml", "/etc/metsuke/profiles.d", "/var/log/metsuke/audit", "/var/lib/metsuke/audit-key.pem"}
	if diff := cmp.Diff(want, left); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if l.read("/etc/metsuke/metsuke-runc.toml") != changed || l.read("/etc/metsuke/config.toml") != own {
		t.Error("an operator's file was changed")
	}
	l.write("/etc/metsuke/metsuke-runc.toml", "version = 9\n", 0o644)
	if _, err := l.install("v1"); err == nil || !strings.Contains(err.Error(), "/etc/metsuke/metsuke-runc.toml:1") {
		t.Errorf("a file that Metsuke cannot read: %v", err)
	}
	if err := os.Remove(l.dir + "/etc/metsuke/metsuke-runc.toml"); err != nil {
		t.Fatal(err)
	}
	l.mustInstall("v1")
	if _, err := l.at(nil).Uninstall(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	delete(was, "/var/log/metsuke")
	l.same(was)
}

// A DaemonSet leaves nothing either: the kubelet has made what it mounts, and the agent has written the cluster's profiles.
func TestUninstallAfterAnAgent(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	was := l.snapshot()
	l.mkdir(Etc)
	l.mkdir(LogDir)
	l.mustInstall("v1")
	agent := &mirror.Mirror{Tree: l.at(nil).Tree, Dir: Etc + "/profiles.d"}
	if _, err := agent.Put(nil); err != nil {
		t.Fatal(err)
	}
	l.mustUninstall()
	l.same(was)
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		layout string
		files  map[string]string
		want   string
	}{
		"a drop-in of theirs":    {"2-conf.d", map[string]string{"/etc/containerd/conf.d/metsuke.toml": "version = 3\n"}, "somebody else"},
		"a later file overrides": {"1.7", map[string]string{containerd.DefaultConfig: "imports = ['/etc/late.toml']\n" + mainV2, "/etc/late.toml": "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"}, "imported later"},
		"inline tables":          {"1.7", map[string]string{containerd.DefaultConfig: "version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {containerd = {default_runtime_name = \"runc\"}}}\n"}, "config.toml"},
		"no delegate":            {"2-conf.d", map[string]string{"/usr/local/bin/containerd-shim-runc-v2": ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, layouts[c.layout])
			for file, text := range c.files {
				l.write(file, text, 0o644)
			}
			if name == "no delegate" {
				if err := os.Chmod(l.dir+"/usr/local/bin/containerd-shim-runc-v2", 0o644); err != nil {
					t.Fatal(err)
				}
				c.want = "no delegate"
			}
			was := l.snapshot()
			if _, err := l.install("v1"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			l.same(was)
			if l.service.restarts > 0 {
				t.Error("containerd was restarted")
			}
		})
	}
}

// A node's links do not lead an installer out of the node's tree.
func TestHostileTree(t *testing.T) {
	for _, place := range []string{"/opt/metsuke", "/etc/metsuke", "/etc/containerd/conf.d", "/usr/local/bin", "/run", Home + "/current", Home + "/v1", "/etc/containerd/config.toml"} {
		for _, target := range []string{"absolute", "upwards"} {
			t.Run(strings.ReplaceAll(place, "/", "_")+"-"+target, func(t *testing.T) {
				l := newLab(t, layouts["2-version-2"])
				outside := t.TempDir()
				for name, text := range map[string]string{"config.toml": "version = 3\n", "metsuke.toml": "", "file": "x"} {
					if err := os.WriteFile(filepath.Join(outside, name), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				to := outside
				if strings.HasSuffix(place, ".toml") {
					to += "/config.toml"
				}
				if target == "upwards" {
					to = strings.Repeat("../", 30) + to
				}
				if err := os.RemoveAll(l.dir + place); err != nil {
					t.Fatal(err)
				}
				l.mkdir(filepath.Dir(place))
				l.link(to, place)
				_, installed := l.install("v1")
				_, uninstalled := l.at(nil).Uninstall(t.Context(), true)
				t.Logf("install: %v; uninstall: %v", installed, uninstalled)
				entries, err := os.ReadDir(outside)
				if err != nil || len(entries) != 3 {
					t.Errorf("outside: %v, %v", entries, err)
				}
				for _, e := range entries {
					if st, err := e.Info(); err != nil || st.Size() > 12 {
						t.Errorf("outside: %v, %v", st, err)
					}
				}
			})
		}
	}
}

// A handler whose delegate is gone goes too, but not from under a pod.
func TestDelegateGone(t *testing.T) {
	l := newLab(t, layouts["2-kata"])
	was := l.snapshot()
	l.mustInstall("v1")
	kata := "/opt/kata/bin/containerd-shim-kata-v2"
	if err := os.Remove(l.dir + kata); err != nil {
		t.Fatal(err)
	}
	l.service.pods = []cri.Pod{{Namespace: "n", Name: "p", Handler: "metsuke-kata-qemu", Ready: true}}
	if _, err := l.install("v1"); err == nil || !strings.Contains(err.Error(), `"n/p" (metsuke-kata-qemu)`) {
		t.Fatalf("under a pod: %v", err)
	}
	l.service.pods = nil
	l.mustInstall("v1")
	if _, ok := l.service.inForce["metsuke-kata-qemu"]; ok || l.service.restarts != 2 {
		t.Errorf("in force: %v; %d restarts", names(l.service.inForce), l.service.restarts)
	}
	l.mustUninstall()
	l.write(kata, "kata", 0o755)
	l.same(was)
}
