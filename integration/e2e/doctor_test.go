// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
	"metsuke.dev/metsuke/node/doctor"
)

// doctor runs `metsuke doctor` for some handlers.
func (h *harness) doctor(handlers []string, args ...string) (code int, r doctor.Report) {
	h.t.Helper()
	args = append([]string{"doctor", "-o", "json", "--containerd-address", h.Endpoint()}, args...)
	for _, name := range handlers {
		args = append(args, "--handler", name)
	}
	out, err := exec.CommandContext(h.ctx, stand.Metsuke("metsuke"), args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		h.t.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		h.t.Fatalf("metsuke doctor: %d, %v\n%s", code, err, out)
	}
	return code, r
}

// found says whether a check found something of this severity, in which the text is.
func found(r doctor.Report, check string, severity doctor.Severity, text string) bool {
	return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
		return f.Check == check && f.Severity == severity && strings.Contains(f.Found, text)
	})
}

// A stand is a sound node, and a doctor leaves nothing on it.
func TestDoctor(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		handlers := []string{baseline, passthrough, tuned}
		code, r := h.doctor(handlers)
		if code != 0 || !found(r, "restart", doctor.OK, "") || r.Count(doctor.OK) < 20 {
			t.Errorf("exit code %d: %+v", code, r.Findings)
		}
		// From a container, with the node's root somewhere: here the stand's.
		if code, r := h.doctor(handlers, "--root", "/proc/1/root", "--no-canary"); code != 0 || r.Count(doctor.OK) < 15 {
			t.Errorf("through --root: exit code %d: %+v", code, r.Findings)
		}
		for name, want := range map[string]string{
			baseline: "its receipt is what baseline promises", tuned: "its receipt is what tuned promises", passthrough: "under passthrough, which promises nothing",
		} {
			if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
				return f.Check == "canary" && f.Subject == name && f.Severity == doctor.OK && strings.Contains(f.Found, want)
			}) {
				t.Errorf("no canary under %s: %+v", name, r.Findings)
			}
			if streams, err := os.ReadDir(h.AuditDir(name)); err != nil || slices.ContainsFunc(streams, func(e os.DirEntry) bool {
				return strings.HasPrefix(e.Name(), doctor.CanaryNamespace)
			}) {
				t.Errorf("streams of %s: %v, %v", name, streams, err)
			}
		}
	})
}

// A canary is held by the profile of its namespace, with all that it says.
func TestDoctorProfile(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		h.profile(baseline, doctor.CanaryNamespace, "limits: {memory: 128Mi, pids: 32, cpu: 500m}")
		code, r := h.doctor([]string{baseline}, "--check", "canary")
		if code != 0 || !found(r, "canary", doctor.OK, "its receipt is what metsuke-doctor promises") {
			t.Errorf("exit code %d: %+v", code, r.Findings)
		}
	})
}

// What is broken is found, and mended by what the doctor says.
func TestDoctorFinds(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		ill := func(check string, severity doctor.Severity, text string, wantCode int) {
			t.Helper()
			if code, r := h.doctor([]string{baseline}, "--check", check); code != wantCode || !found(r, check, severity, text) {
				t.Errorf("not found: %s %s (exit code %d): %+v", check, text, code, r.Findings)
			}
		}
		well := func(args ...string) {
			t.Helper()
			if code, r := h.doctor([]string{baseline}, append(args, "--no-canary")...); code != 0 {
				t.Errorf("not mended: %+v, %+v", r.Repairs, r.Findings)
			}
		}
		edit := func(file, old, new string) (undo func()) {
			t.Helper()
			was, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(was), old) {
				t.Fatalf("%s: %v, or has no %q", file, err, old)
			}
			h.must(os.WriteFile(file, []byte(strings.ReplaceAll(string(was), old, new)), 0o644))
			return func() { h.must(os.WriteFile(file, was, 0o644)) }
		}

		// A profile with a fault.
		bad := filepath.Join(h.ProfilesDir(baseline), "bad.yaml")
		h.must(os.WriteFile(bad, []byte("apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: bad}\nspec: {limits: {pid: 5}}\n"), 0o600))
		ill("profiles", doctor.Fail, "spec.limits.pid: is not a known field", 1)
		ill("canary", doctor.Fail, "bad.yaml", 1)
		h.must(os.Remove(bad))

		// Streams that others could change.
		h.must(os.Chmod(h.AuditDir(baseline), 0o777))
		ill("directories", doctor.Fail, "writable by others", 1)
		well("--fix")
		if st, err := os.Stat(h.AuditDir(baseline)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", st.Mode(), err)
		}

		// A helper that containers cannot execute.
		own := filepath.Join(h.Dir, "own-guest")
		program, err := os.ReadFile(stand.Metsuke("metsuke-guest"))
		h.must(err)
		h.must(os.WriteFile(own, program, 0o600))
		undo := edit(h.ConfigPath(baseline), stand.Metsuke("metsuke-guest"), own)
		ill("helper", doctor.Fail, "cannot execute it: mode 0600", 1)
		ill("canary", doctor.Fail, "", 1)
		well("--fix")
		undo()
		h.must(os.Remove(own))

		// A configuration with a fault.
		undo = edit(h.ConfigPath(baseline), "default_profile", "default_profil")
		ill("config", doctor.Fail, "default_profil: is not a known field", 1)
		undo()

		// Annotations that do not arrive: first only in containerd's file, then in force.
		undo = edit(filepath.Join(h.Dir, "config.toml"), `pod_annotations = ["metsuke.dev/*"`, `pod_annotations = ["example.org/*"`)
		ill("restart", doctor.Warn, "pod_annotations is ", 0)
		h.restartContainerd()
		ill("handlers", doctor.Fail, "annotations do not reach Metsuke", 1)
		undo()
		h.restartContainerd()
		if code, r := h.doctor([]string{baseline}); code != 0 || !found(r, "canary", doctor.OK, "") {
			t.Errorf("not mended: %+v", r.Findings)
		}
	})
}

func (h *harness) restartContainerd() {
	h.t.Helper()
	h.must(h.StopContainerd(unix.SIGTERM))
	h.must(h.StartContainerd(h.ctx))
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}
