// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/internal/tomlfile"
)

const example = "../docs/config.example.toml"

func TestDefaultIsWhatAnEmptyFileSays(t *testing.T) {
	got, err := Parse("c.toml", []byte("version = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Error(diff)
	}
}

func TestExampleIsDefault(t *testing.T) {
	got, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("docs/config.example.toml differs from Default():\n%s", diff)
	}
}

// Every field must be in the example, and what the example has in comments must be right as well.
func TestExampleIsWhole(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range slices.Concat(fields, runcFields, kataFields) {
		name := f.Path[strings.LastIndex(f.Path, ".")+1:]
		if !regexp.MustCompile(`(?m)^(# )?` + name + ` = `).Match(data) {
			t.Errorf("%s is not in the example", f.Path)
		}
	}
	text := regexp.MustCompile(`(?m)^# (profiles = |key = )`).ReplaceAllString(string(data), "$1")
	c, err := Parse("c.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Directories.ProfilesNamed, want.Audit.KeyNamed = true, true
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	full := `
version = 1
default_profile = "coder"
floor = "node-floor"
delegate.runtime_type = "io.containerd.runc.v2"
delegate.binary = "/opt/bin/containerd-shim-runc-v2"
delegate.options = { BinaryName = "crun", Root = "/run/crun", SystemdCgroup = true, IoUid = 7 }
[supervisor]
placement = "guest"
helper = "/opt/bin/metsuke-guest"
[deadlines]
armed = "1m30s"
[directories]
profiles = "/srv/profiles"
[audit]
segment_size = "1Gi"
segment_age = "0s"
pod_budget = "20Gi"
node_budget = "100Gi"
stall_timeout = "250ms"
key = "/etc/metsuke/audit-key.pem"
[audit.retention]
max_age = "720h"
pod_size = "10Gi"
node_size = "80Gi"
compress = false
shipped = ["siem", "archive-2"]
checkpoints = "/srv/ship"
`
	got, err := Parse("c.toml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.DefaultProfile, want.Floor = "coder", "node-floor"
	want.Delegate = Delegate{
		RuntimeType: "io.containerd.runc.v2", Binary: "/opt/bin/containerd-shim-runc-v2",
		Runc: &RuncOptions{BinaryName: "crun", Root: "/run/crun", SystemdCgroup: true, IoUid: 7},
	}
	want.Supervisor = Supervisor{Placement: PlacementGuest, Helper: "/opt/bin/metsuke-guest"}
	want.Deadlines.Armed = 90 * time.Second
	want.Directories.Profiles, want.Directories.ProfilesNamed = "/srv/profiles", true
	want.Audit = Audit{
		SegmentSize: 1 << 30, PodBudget: 20 << 30, NodeBudget: 100 << 30, StallTimeout: 250 * time.Millisecond,
		Key: "/etc/metsuke/audit-key.pem", KeyNamed: true,
		Retention: Retention{
			MaxAge: 720 * time.Hour, PodSize: 10 << 30, NodeSize: 80 << 30, Shipped: []string{"siem", "archive-2"}, Checkpoints: "/srv/ship",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKata(t *testing.T) {
	got, err := Parse("c.toml", []byte("version = 1\n[delegate]\nruntime_type = \"io.containerd.kata-qemu-runtime-rs.v2\"\noptions.ConfigPath = \"/etc/k.toml\"\nallowed_annotations = [\"io.katacontainers.config.agent.kernel_modules\", \"io.katacontainers.a\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Delegate = Delegate{
		RuntimeType: "io.containerd.kata-qemu-runtime-rs.v2", Binary: "containerd-shim-kata-qemu-runtime-rs-v2",
		Kata: &KataOptions{
			ConfigPath:         "/etc/k.toml",
			AllowedAnnotations: []string{"io.katacontainers.config.agent.kernel_modules", "io.katacontainers.a"},
		},
	}
	want.Supervisor.Placement = PlacementGuest
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The bad files of testdata/bad and exactly what is said of them.
func TestBadFiles(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("c.toml", data)
			if err == nil {
				t.Fatal("was taken")
			}
			goldentest.Equal(t, strings.TrimSuffix(file, ".toml")+".err", err.Error()+"\n")
			if len(diagnostic.All(err)) == 0 {
				t.Error("is no diagnostic")
			}
		})
	}
}

func TestAbsentIsNotInvalid(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, ErrAbsent) {
		t.Errorf("absent: %v", err)
	}
	if _, err := LoadOrDefault(filepath.Join(dir, "none.toml")); !errors.Is(err, ErrAbsent) {
		t.Errorf("named and absent: %v", err)
	}
	for name, err := range map[string]error{
		"a directory": func() error { _, err := Load(dir); return err }(),
		"no TOML":     func() error { _, err := Parse("c", []byte("version = 1\n]")); return err }(),
		"empty":       func() error { _, err := Parse("c", nil); return err }(),
		"too large":   func() error { _, err := Parse("c", make([]byte, tomlfile.MaxSize+1)); return err }(),
		"trailing":    func() error { _, err := Parse("c", []byte("version = 1\n\x00garbage")); return err }(),
	} {
		if err == nil || errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenProfiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		dirs   Directories
		hasFS  bool
		hasErr bool
	}{
		{"present", Directories{Profiles: dir}, true, false},
		{"absent", Directories{Profiles: dir + "/none"}, false, false},
		{"absent and named", Directories{Profiles: dir + "/none", ProfilesNamed: true}, false, true},
		{"a file", Directories{Profiles: file}, false, true},
	} {
		fsys, err := (&Config{Directories: c.dirs}).OpenProfiles()
		if (fsys != nil) != c.hasFS || (err != nil) != c.hasErr {
			t.Errorf("%s: %v, %v", c.name, fsys, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.toml", example} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, _ := os.ReadFile(file)
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("c.toml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			return
		}
		if c.Version != Version || (c.Delegate.Runc == nil) == (c.Delegate.Kata == nil) || c.Delegate.Binary == "" || !isPath(c.Directories.State) {
			t.Fatalf("taken: %+v", c)
		}
	})
}
