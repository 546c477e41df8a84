// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/node/cri/servertest"
	"metsuke.dev/metsuke/node/doctor"
)

// emptyNode is the root of a node that has nothing but profiles.
func emptyNode(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc/metsuke/profiles.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestDoctor(t *testing.T) {
	root := emptyNode(t)
	code, out, errs := cli("", "doctor", "--root", root, "-o", "json")
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitFailure || errs != "" {
		t.Fatalf("%d, %v, %s", code, err, errs)
	}
	seen := map[string]doctor.Severity{}
	for _, f := range report.Findings {
		seen[f.Check] = f.Severity
	}
	for check, want := range map[string]doctor.Severity{"containerd": doctor.Fail, "profiles": doctor.OK, "canary": doctor.Skip} {
		if seen[check] != want {
			t.Errorf("%s is %q, want %q", check, seen[check], want)
		}
	}
	code, out, errs = cli("", "doctor", "--root", root, "--check", "profiles,config", "--check", "directories", "--fix")
	if code != 0 || errs != "" || !strings.Contains(out, "\nprofiles ") || strings.Contains(out, "\nshim ") ||
		!strings.HasPrefix(out, "mended: directories, /var/log/metsuke/audit: made /var/log/metsuke/audit, mode 0700\n") {
		t.Errorf("%d, %s\n%s", code, errs, out)
	}
	if st, err := os.Stat(filepath.Join(root, "var/log/metsuke/audit")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestDoctorUsage(t *testing.T) {
	for want, args := range map[string][]string{
		`"profile" is no check; expected kernel`: {"--check", "profile"},
		"did you mean profiles?":                 {"--check", "profile"},
		`--config: "c.toml" is not an absolute`:  {"--config", "c.toml"},
		`--root: "host" is not an absolute`:      {"--root", "host"},
		"unknown command":                        {"node"},
		"must be one of text, json":              {"-o", "yaml"},
		"flag needs an argument: --handler":      {"--handler"},
	} {
		if code, _, errs := cli("", append([]string{"doctor"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: %d, %s, want %s", args, code, errs, want)
		}
	}
	if code, _, errs := cli("", "doctor", "--root", "/nonexistent/root"); code != exitFailure || !strings.Contains(errs, "the node's root") {
		t.Errorf("%d, %s", code, errs)
	}
}

func TestDoctorCompletion(t *testing.T) {
	root := emptyNode(t)
	server := servertest.Start(t)
	server.Config = `{"containerd":{"runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2"},"metsuke":{"runtimeType":"io.containerd.metsuke.v2"}}}}`
	socket := strings.TrimPrefix(server.Endpoint, "unix://")
	if err := os.Link(socket, filepath.Join(root, "cri.sock")); err != nil {
		t.Fatal(err)
	}
	_, out, _ := cli("", "__complete", "doctor", "--root", root, "--containerd-address", "/cri.sock", "--handler", "")
	if lines := strings.Split(out, "\n"); lines[0] != "metsuke" || lines[1][0] != ':' {
		t.Errorf("handlers: %q", out)
	}
	if _, out, _ := cli("", "__complete", "doctor", "--check", ""); !strings.HasPrefix(out, "kernel\tseccomp") || !strings.Contains(out, "\ncanary\t") {
		t.Errorf("checks: %q", out)
	}
	for _, flag := range []string{"--check", "--handler", "--no-canary", "--fix", "--root", "--containerd-address", "--output"} {
		if _, out, _ := cli("", "__complete", "doctor", "--"); !strings.Contains(out, flag) {
			t.Errorf("%s is not completed: %q", flag, out)
		}
	}
}
