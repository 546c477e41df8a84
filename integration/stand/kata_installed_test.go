// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The parts of an installation are found in each layout that there is; half an installation is none, and the error says what is
// missing.
func TestFindKata(t *testing.T) {
	const (
		goShim, rsShim = "bin/containerd-shim-kata-v2", "runtime-rs/bin/containerd-shim-kata-v2"
		configs        = "share/defaults/kata-containers/"
		deployed       = configs + "runtimes/qemu/configuration-qemu.toml"
		archived       = configs + "configuration-qemu.toml"
		packaged       = configs + "configuration.toml"
		rsDeployed     = configs + "runtime-rs/runtimes/qemu-runtime-rs/configuration-qemu-runtime-rs.toml"
		rsArchived     = configs + "runtime-rs/configuration-qemu-runtime-rs.toml"
		clh            = configs + "configuration-clh.toml"
	)
	for name, test := range map[string]struct {
		files        []string
		config       string // asked for
		shim, wanted string // "" is an error, with these words in it
		words        string
	}{
		"kata-deploy":                 {[]string{goShim, rsShim, deployed, archived, rsDeployed}, "", goShim, deployed, ""},
		"archive":                     {[]string{goShim, rsShim, archived, packaged, rsArchived}, "", goShim, archived, ""},
		"package":                     {[]string{goShim, packaged}, "", goShim, packaged, ""},
		"runtime-rs alone":            {[]string{rsShim, rsDeployed}, "", rsShim, rsDeployed, ""},
		"runtime-rs alone, archive":   {[]string{rsShim, rsArchived, archived}, "", rsShim, rsArchived, ""},
		"another hypervisor":          {[]string{goShim, archived, clh}, clh, goShim, clh, ""},
		"runtime-rs by configuration": {[]string{goShim, rsShim, archived, rsArchived}, rsArchived, rsShim, rsArchived, ""},
		"nothing":                     {nil, "", "", "", goShim},
		"shim alone":                  {[]string{goShim}, "", "", "", archived},
		"configuration alone":         {[]string{archived}, "", "", "", goShim},
		"runtimes mixed":              {[]string{rsShim, archived}, "", "", "", rsArchived},
		"configuration is not there":  {[]string{goShim, archived}, clh, "", "", clh},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range test.files {
				path := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			config := test.config
			if config != "" {
				config = filepath.Join(dir, config)
			}
			found, err := findKata(dir, config)
			if test.wanted == "" {
				if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, test.words)) {
					t.Errorf("%+v, %v; want an error that names %s", found, err, test.words)
				}
				return
			}
			if want := (kataFiles{filepath.Join(dir, test.shim), filepath.Join(dir, test.wanted)}); err != nil || found != want {
				t.Errorf("%+v, %v; want %+v", found, err, want)
			}
		})
	}
	if _, err := findKata("opt/kata", ""); err == nil {
		t.Error("a relative path is taken")
	}
}

// With an installation nothing of the stand's own is built or run, and results say whose they are.
func TestKataInstalled(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"bin/containerd-shim-kata-v2":                            "#!/bin/sh\necho 'Kata Containers containerd shim (Golang): version: 9.9.9'\n",
		"share/defaults/kata-containers/configuration-qemu.toml": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{kataVariable, kataConfigVariable, kataShimVariable, kataAgentVariable, accelVariable} {
		t.Setenv(name, "")
	}
	if about := Kata.About(); !OnTheStand() || !strings.Contains(about, "stand-in") || len(Kata.Tools()) != 3 {
		t.Errorf("without an installation: %t, %q, %v", OnTheStand(), about, Kata.Tools())
	}
	t.Setenv(kataAgentVariable, "/some/agent")
	if about := Kata.About(); OnTheStand() || strings.Contains(about, "stand-in") || !strings.Contains(about, "/some/agent") {
		t.Errorf("with another agent: %t, %q", OnTheStand(), about)
	}
	t.Setenv(kataVariable, dir)
	if about := Kata.About(); OnTheStand() || strings.Contains(about, "stand-in") || !strings.Contains(about, "9.9.9") || len(Kata.Tools()) != 0 {
		t.Errorf("with one: %t, %q, %v", OnTheStand(), about, Kata.Tools())
	}
	if err := buildKata("/nowhere"); err != nil {
		t.Error(err)
	}
	if kata, _, err := kataToRun(nil); err != nil || kata.shim != filepath.Join(dir, "bin", kataShim) {
		t.Errorf("%+v, %v", kata, err)
	}
	t.Setenv(kataVariable, "")
	t.Setenv(kataConfigVariable, "/some/configuration.toml")
	if err := buildKata("/nowhere"); err == nil || !strings.Contains(err.Error(), kataVariable) {
		t.Errorf("a configuration without an installation: %v", err)
	}
}
