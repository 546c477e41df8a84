// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRuntimeWrapper(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"wrapper": string(runtimeWrapper), "runc": "#!/bin/sh\necho \"$@\"\n",
		"config.json":  `{"a":["CAP_SYS_PTRACE","CAP_SYS_RESOURCE"],"b":["CAP_SYS_RESOURCE","CAP_KILL"]}`,
		"process.json": `["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_KILL"]`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"--root", "/run", "create", "--bundle", dir, "id"},
		{"exec", "--process", filepath.Join(dir, "process.json"), "id"},
	} {
		cmd := exec.Command(filepath.Join(dir, "wrapper"), args...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != strings.Join(args, " ") {
			t.Errorf("runc is called with %q, %v; want %q", out, err, args)
		}
	}
	for name, want := range map[string]string{
		"config.json": `{"a":["CAP_SYS_PTRACE"],"b":["CAP_KILL"]}`, "process.json": `["CAP_CHOWN","CAP_KILL"]`,
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}

// A second run waits for the first.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kind", "lock")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error)
	go func() {
		unlock, err := lock(path)
		if err == nil {
			err = unlock()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("a second run has the lock too: %v", err)
	default:
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestConfiguration(t *testing.T) {
	for name, test := range map[string]struct {
		fields       map[string]any
		want, absent []string
	}{
		"one node here": {
			map[string]any{"Workers": make([]struct{}, 0), "Hosts": hostsDir, "PodNetwork": podNetwork, "RestrictOOM": true, "CgroupV1": true},
			[]string{"restrict_oom_score_adj = true", "conf_template = \"" + podNetwork, "failCgroupV1: false"}, []string{"role: worker"},
		},
		"three stock nodes": {
			map[string]any{"Workers": make([]struct{}, 2), "Hosts": hostsDir, "PodNetwork": "", "RestrictOOM": false, "CgroupV1": false},
			[]string{"control-plane\n- role: worker\n- role: worker\ncontainerd", "restrict_oom_score_adj = false"}, []string{"conf_template", "kubeadmConfigPatches"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := configuration.Execute(&out, test.fields); err != nil {
				t.Fatal(err)
			}
			for _, text := range test.want {
				if !strings.Contains(out.String(), text) {
					t.Errorf("%q is missing in:\n%s", text, out.String())
				}
			}
			for _, text := range test.absent {
				if strings.Contains(out.String(), text) {
					t.Errorf("%q is in:\n%s", text, out.String())
				}
			}
		})
	}
}
