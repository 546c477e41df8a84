// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/internal/goldentest"
)

func ptr[T any](v T) *T { return &v }

var limits = cgroups.Limits{CPU: ptr(int64(2000)), Memory: ptr(int64(2 << 30)), MemoryHigh: ptr(int64(1800 << 20)), Swap: ptr(int64(0)), Pids: ptr(int64(256))}

// everything is what Create does to a container, and what comes out beside the file.
type everything struct {
	Changes []cgroups.Change
	Moved   []plan.EnvVar
	Was     Capabilities
	seccomp *specs.LinuxSeccomp
	plan    plan.Plan
}

func (e *everything) edits() []Edit {
	return []Edit{
		ClampLimits(limits, cgroups.V2, &e.Changes),
		TakeSeccomp(&e.seccomp),
		MountPrivate("/var/lib/metsuke/guest-0123", "/run/metsuke/k8s.io/c1/sock"),
		OnProcess(MoveGoEnv(&e.Moved), WidenCapabilities(nil, &e.Was), PrefixArgs(Guest, "t0ken")),
	}
}

// inGuestDir is the private directory of a container of a VM.
const inGuestDir = private.Name("/.metsuke-0123")

// inGuest is edits for a container of a VM.
func (e *everything) inGuest() []Edit {
	return []Edit{
		RefuseAnnotations(nil), RefuseGuestFiles(), RefuseStartHooks(), WithResources(),
		ClampLimits(limits, cgroups.V2, &e.Changes),
		RaisePidsLimit(48),
		TakeSeccomp(&e.seccomp),
		MountPrivateInGuest(inGuestDir, "/var/lib/metsuke/guest-0123", true),
		OnProcess(MoveGoEnv(&e.Moved), WidenForResident(true, nil, &e.Was), PrefixArgs(inGuestDir.GuestPath(), "t0ken")),
	}
}

// pause is the edits for a pause container of a VM.
func (*everything) pause() []Edit {
	return []Edit{RefuseAnnotations(nil), WithResources(), SizeSandbox(limits, 16<<20), OnProcess(GuardCapabilities())}
}

// TestGolden rewrites what containerd's CRI plugin wrote (testdata/*.json, made by its own buildContainerSpec and
// sandboxContainerSpec) and compares with testdata/*.golden.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		in, name string
		edits    func(*everything) []Edit
	}{
		{"cri-2.4", "cri-2.4", (*everything).edits},
		{"cri-1.7", "cri-1.7", (*everything).edits},
		{"future", "future", (*everything).edits},
		{"cri-2.4", "cri-2.4-guest", (*everything).inGuest},
		{"future", "future-guest", (*everything).inGuest},
		{"sandbox-2.4", "sandbox-2.4-guest", (*everything).pause},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := os.ReadFile("testdata/" + c.in + ".json")
			if err != nil {
				t.Fatal(err)
			}
			dir := newBundle(t, string(in))
			b, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			var e everything
			if err := b.Apply(c.edits(&e)...); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(c.name, "sandbox") && (e.seccomp == nil || len(e.seccomp.Syscalls) == 0) {
				t.Error("the pod's seccomp profile was lost")
			}
			var got bytes.Buffer
			if err := json.Indent(&got, readFile(t, dir, configFile), "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteString("\n")
			beside, err := json.MarshalIndent(e, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got.Write(append(beside, '\n'))
			goldentest.Equal(t, "testdata/"+c.name+".golden", got.Bytes())
		})
	}
}

func newBundle(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o640); err != nil {
		t.Fatal(err)
	}
	return dir
}

func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

const small = `{"process":{"args":["sh"]}, "x":1.0}`

func prefixed(t *testing.T, dir, token string) {
	t.Helper()
	b, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(OnProcess(PrefixArgs(Guest, token))); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestCommitAndRestore(t *testing.T) {
	dir := newBundle(t, small)
	if err := os.Chown(filepath.Join(dir, configFile), 12, 34); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	prefixed(t, dir, "a")
	const want = `{"process":{"args":["/.metsuke/guest","run","a","--","sh"]},"x":1.0}`
	if got := string(readFile(t, dir, configFile)); got != want {
		t.Errorf("got %s", got)
	}
	if got := string(readFile(t, dir, OriginalFile)); got != small {
		t.Errorf("the original became %s", got)
	}
	for name, want := range map[string]fs.FileMode{configFile: 0o640, OriginalFile: 0o600, digestFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
		if st := info.Sys().(*syscall.Stat_t); name == configFile && (st.Uid != 12 || st.Gid != 34) {
			t.Errorf("config.json belongs to %d:%d now", st.Uid, st.Gid)
		}
	}

	// A Create that is tried again edits the original, not our edit.
	prefixed(t, dir, "b")
	if got := string(readFile(t, dir, configFile)); got != strings.Replace(want, `"a"`, `"b"`, 1) {
		t.Errorf("the second Create gave %s", got)
	}
	if got := string(readFile(t, dir, OriginalFile)); got != small {
		t.Errorf("the second Create made the original %s", got)
	}

	// A new config.json in an old directory is not ours.
	fresh := strings.Replace(small, "sh", "bash", 1)
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(fresh), 0o640); err != nil {
		t.Fatal(err)
	}
	prefixed(t, dir, "c")
	if got := string(readFile(t, dir, OriginalFile)); got != fresh {
		t.Errorf("a new config.json was not taken: %s", got)
	}

	// An attempt that changes nothing takes the edits of an earlier one back.
	b, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := string(readFile(t, dir, configFile)); got != fresh {
		t.Errorf("got %s", got)
	}
	if diff := cmp.Diff([]string{configFile}, files(t, dir)); diff != "" {
		t.Errorf("left behind: %s", diff)
	}

	prefixed(t, dir, "d")
	if b, err = Load(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(readFile(t, dir, configFile)); got != fresh {
		t.Errorf("restored to %s", got)
	}
	if diff := cmp.Diff([]string{configFile}, files(t, dir)); diff != "" {
		t.Errorf("left behind: %s", diff)
	}
}

func TestCommitThatFails(t *testing.T) {
	dir := newBundle(t, small)
	b, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(OnProcess(PrefixArgs(Guest, "a"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, digestFile), 0o700); err != nil { // in the way of a rename
		t.Fatal(err)
	}
	if err := b.Commit(); err == nil {
		t.Error("Commit says that it wrote")
	}
	if got := string(readFile(t, dir, configFile)); got != small {
		t.Errorf("config.json is %s", got)
	}
	if names := files(t, dir); len(names) != 3 {
		t.Errorf("a temporary file stays: %v", names)
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := map[string]string{
		"empty": "", "not JSON": "{", "list": "[]", "null": "null", "trailing": "{} {}", "trailing brace": "{}}",
		"a name twice": `{"a":1,"a":2}`, "twice below": `{"x":[{"a":1,"\u0061":2}]}`, "case": `{"process":{},"Process":{}}`,
		"kelvin": "{\"linux\":{},\"hooks\":{},\"hoo\u212as\":{}}", "deep": strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300),
	}
	for name, config := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(newBundle(t, config)); err == nil {
				t.Error("it was loaded")
			}
			if _, err := EditProcess([]byte(config)); err == nil {
				t.Error("it was taken as a process")
			}
		})
	}
	dir := newBundle(t, "{}")
	config := filepath.Join(dir, configFile)
	if err := os.Truncate(config, MaxConfig+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
	for name, put := range map[string]func() error{
		"link": func() error { return os.Symlink("/etc/hostname", config) },
		"fifo": func() error { return syscall.Mkfifo(config, 0o600) },
		"none": func() error { return nil },
	} {
		if err := errors.Join(os.RemoveAll(config), put()); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil {
			t.Errorf("%s: it was loaded", name)
		}
	}
	dir = newBundle(t, small)
	prefixed(t, dir, "a")
	if err := os.Remove(filepath.Join(dir, OriginalFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a rewritten config.json was taken for the original")
	}
}
