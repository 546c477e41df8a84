// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/report/reporttest"
	"metsuke.dev/metsuke/audit/stream"
)

// sessionStreams writes the streams of a usual session, and of a pod of the same name in another namespace, with a configuration that names
// their key.
func sessionStreams(t *testing.T) (root, config, key string) {
	t.Helper()
	_, config = signedStreams(t)
	dir := filepath.Dir(config)
	public := reporttest.Key(t).PEM()
	key = filepath.Join(dir, "session.pem")
	if err := os.WriteFile(key, public, 0o600); err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(dir, "session")
	reporttest.Write(t, root, reporttest.Key(t), reporttest.Session())
	return root, config, key
}

func TestAuditReport(t *testing.T) {
	root, config, key := sessionStreams(t)
	t.Chdir(t.TempDir())
	code, out, errs := cli("", "audit", "report", "coder", "--dir", root, "--key", key, "--index", "", "-o", "-")
	for _, want := range []string{"<!DOCTYPE html>", ">team-a/coder<", `class="word">proven<`, "/run/docker.sock", "32.85s"} {
		if !strings.Contains(out, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if code != 0 || errs != "metsuke: standard output: "+kibibytes(len(out))+" KiB; evidence: proven\n" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	for _, tt := range []struct {
		what string
		args []string
		code int
		errs string
		file string // that is there then
	}{
		{"by the pod's name", []string{"team-a/coder", "--key", key}, 0, "coder.html: ", "coder.html"},
		{"which is not replaced", []string{"team-a/coder", "--key", key}, 1, "coder.html is there already: -o coder.html replaces it", "coder.html"},
		{"but by its name", []string{"coder", "--key", key, "-o", "coder.html"}, 0, "evidence: proven", "coder.html"},
		{"another key", []string{"coder", "--config", config, "-o", "fault.html"}, 1, "evidence: FAULT", "fault.html"},
		{"part of it", []string{"coder", "--key", key, "-c", "agent", "--since", "2026-11-21T10:31:20Z", "-o", "part.html"}, 0, "evidence: proven", "part.html"},
		{"no such pod", []string{"nobody", "--key", key}, 1, "pod nobody has no such stream here", ""},
		{"no such container", []string{"coder", "-c", "none", "--key", key, "-o", "none.html"}, 1, "has no such stream here", ""},
		{"no such directory", []string{"coder", "--key", key, "-o", "none/coder.html"}, 1, "there is no directory none", ""},
		{"a directory", []string{"coder", "--key", key, "-o", "."}, 1, "not a regular file", ""},
		{"no pod", nil, 2, "accepts 1 arg", ""},
		{"two pods", []string{"coder", "other"}, 2, "accepts 1 arg", ""},
	} {
		code, out, errs := cli("", append([]string{"audit", "report", "--dir", root, "--index", ""}, tt.args...)...)
		if code != tt.code || out != "" || !strings.Contains(errs, tt.errs) {
			t.Errorf("%s: code %d, stdout %.99q, stderr %q", tt.what, code, out, errs)
		}
		if tt.file == "" {
			continue
		}
		info, err := os.Lstat(tt.file)
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() < 10_000 {
			t.Errorf("%s: %v, %v", tt.what, info, err)
		}
	}
	page, err := os.ReadFile("part.html")
	if err != nil || !strings.Contains(string(page), "--since 2026-11-21T10:31:20Z") || strings.Contains(string(page), "git-remote-https") {
		t.Errorf("a part is another one, or does not say so: %v", err)
	}
	left, err := os.ReadDir(".")
	if err != nil || len(left) != 3 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func kibibytes(n int) string { return strconv.Itoa((n + 1023) >> 10) }

// Links that wait where a page is to go are not followed.
func TestAuditReportFollowsNoLink(t *testing.T) {
	root, _, key := sessionStreams(t)
	t.Chdir(t.TempDir())
	for _, link := range []string{"coder.html", "other.html"} {
		if err := os.Symlink("victim", link); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{nil, {"-o", "other.html"}} {
		code, _, errs := cli("", append([]string{"audit", "report", "coder", "--dir", root, "--index", "", "--key", key}, args...)...)
		if code != 1 || errs == "" {
			t.Errorf("%q: code %d, %q", args, code, errs)
		}
	}
	if _, err := os.Lstat("victim"); err == nil {
		t.Error("it wrote through a link")
	}
}

// What cannot be read is missing from the page, which says so, and the command fails.
func TestAuditReportProblems(t *testing.T) {
	root, _, key := sessionStreams(t)
	path := filepath.Join(stream.Dir(root, audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d", Container: "proxy"}), "00000001.ndjson")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("</script>\n"); err != nil {
		t.Fatal(err)
	}
	file.Close()
	code, out, errs := cli("", "audit", "report", "coder", "--dir", root, "--index", "", "--key", key, "-o", "-")
	if code != 1 || !strings.Contains(errs, "evidence: FAULT") || !strings.Contains(errs, "1 places of the streams could not be read") {
		t.Errorf("code %d, %q", code, errs)
	}
	for _, want := range []string{"could not be read, and are not in this page: 1", "no-record", `class="word">FAULT<`} {
		if !strings.Contains(out, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// A name that two namespaces have names no pod.
func TestAuditReportAmbiguous(t *testing.T) {
	root, _, key := sessionStreams(t)
	other := reporttest.Session()[2]
	other.Identity.Namespace = "team-b"
	reporttest.Write(t, root, reporttest.Key(t), []reporttest.Instance{other})
	code, out, errs := cli("", "audit", "report", "coder", "--dir", root, "--index", "", "--key", key, "-o", "-")
	if code != 1 || out != "" || !strings.Contains(errs, "in 2 namespaces: name one, as NAMESPACE/coder") {
		t.Errorf("code %d, %q, %.99q", code, errs, out)
	}
	if code, out, _ := cli("", "audit", "report", "team-b/coder", "--dir", root, "--index", "", "--key", key, "-o", "-"); code != 0 || !strings.Contains(out, ">team-b/coder<") {
		t.Errorf("code %d", code)
	}
}
