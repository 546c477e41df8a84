// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/install"
)

func TestNodeFaults(t *testing.T) {
	empty := t.TempDir() // a root without a systemd, a containerd or anything
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no verb":       {[]string{"instal"}, 2, "did you mean install"},
		"an argument":   {[]string{"install", "x"}, 2, "unknown command"},
		"a duration":    {[]string{"uninstall", "--timeout", "x"}, 2, "invalid argument"},
		"no root":       {[]string{"status", "--root", empty + "/none"}, 1, "the node's root"},
		"no systemd":    {[]string{"install", "--root", empty}, 1, "say --containerd and --no-restart"},
		"relative":      {[]string{"install", "--root", empty, "--containerd", "containerd"}, 1, `--containerd: "containerd" is not an absolute path of the node`},
		"no containerd": {[]string{"uninstall", "--root", empty, "--containerd", "/usr/bin/containerd"}, 1, "/usr/bin/containerd"},
		"no binaries":   {[]string{"install", "--root", empty, "--from", empty}, 1, "ask the binaries in " + empty},
	} {
		code, out, errs := cli("", append([]string{"node"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%s: %d %q %q, want %d %q", name, code, out, errs, c.code, c.want)
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("what fails at once has left %v, %v", entries, err)
	}
}

// The version of other binaries is asked from them.
func TestNodeSource(t *testing.T) {
	dir := t.TempDir()
	for script, want := range map[string]string{
		"echo 'metsuke v1.2.3 (go1, linux/amd64)'": "v1.2.3",
		"echo something else":                      "",
		"exit 1":                                   "",
	} {
		if err := os.WriteFile(filepath.Join(dir, "metsuke"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		source, err := (&nodeFlags{from: dir}).source(t.Context())
		if source.Version != want || (err == nil) != (want != "") {
			t.Errorf("%s: %+v, %v", script, source, err)
		}
	}
}

func TestDiff(t *testing.T) {
	for name, c := range map[string]struct{ before, after, want string }{
		"new":     {"", "a\nb\n", "/f:\n+ a\n+ b\n"},
		"removed": {"a\n", "", "/f:\n- a\n"},
		"inside":  {"1\n2\n3\n4\n5\n6\n7\n", "1\n2\n3\nx\n5\n6\n7\n", "/f:\n  2\n  3\n- 4\n+ x\n  5\n  6\n"},
		"at end":  {"a\na\n", "a\na\na\n", "/f:\n  a\n  a\n+ a\n"},
		"begin":   {"b\nc\n", "a\nb\nc\n", "/f:\n+ a\n  b\n  c\n"},
	} {
		if diff := cmp.Diff(c.want, diff(install.Change{Path: "/f", Before: c.before, After: c.after})); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestNodeOutput(t *testing.T) {
	var b strings.Builder
	err := printStatus(&b, &install.Status{
		Interrupted: true, Previous: "v1",
		Containerd: install.ContainerdStatus{Version: "v2.4.2", Binary: "/usr/bin/containerd", Config: containerd.DefaultConfig},
		Versions: []install.Version{
			{Name: "v1", Ours: true, Processes: []int{7, 8}}, {Name: "v2", Ours: true, Linked: true}, {Name: "v3"},
		},
		Handlers: []install.HandlerStatus{
			{Name: "metsuke-kata", Written: true, InForce: true, Pods: 2},
			{Name: "metsuke-runc", Plain: "runc", File: "/etc/metsuke/metsuke-runc.toml", Wanted: true},
		},
		Notes: []string{"a note"}, ToDo: []string{"restart containerd"},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString("---\n")
	err = printPlan(&b, &install.Plan{
		Version: "v2", Notes: []string{"a note"}, Restart: true, Why: "handler metsuke-runc is not in force", Interrupted: true,
		Changes: []install.Change{{Path: "/f", After: "a\n"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "node.txt", b.String())
}
