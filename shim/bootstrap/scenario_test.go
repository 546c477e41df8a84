// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
)

// delegates are those that the scenarios run with: the fake in each form of speech, and real ones of runc's that are in
// METSUKE_BIN, at its top or one level below. The real ones need no runc as long as nothing is created.
func delegates(t *testing.T) map[string]struct{ binary, form string } {
	all := map[string]struct{ binary, form string }{}
	for _, form := range []string{"plain", "json", "bootstrap"} {
		all["fake "+form] = struct{ binary, form string }{fakeBinary, form}
	}
	if dir := os.Getenv("METSUKE_BIN"); dir != "" {
		top, _ := filepath.Glob(filepath.Join(dir, "containerd-shim-runc-v2"))
		below, _ := filepath.Glob(filepath.Join(dir, "*", "containerd-shim-runc-v2"))
		if len(top)+len(below) == 0 {
			t.Fatalf("METSUKE_BIN is %s, which has no containerd-shim-runc-v2", dir)
		}
		for _, path := range append(top, below...) {
			all[strings.TrimPrefix(path, dir)] = struct{ binary, form string }{path, ""}
		}
	}
	return all
}

func everyDelegate(t *testing.T, scenario func(t *testing.T, s *stand, p protocol)) {
	for name, d := range delegates(t) {
		for _, p := range []protocol{older, newer} {
			t.Run(name+"/"+string(p), func(t *testing.T) { scenario(t, newStand(t, d.binary, d.form), p) })
		}
	}
}

// A pod's life in order: start, a second container that joins, calls, shutdown, and containerd's delete at the end.
func TestLife(t *testing.T) {
	everyDelegate(t, func(t *testing.T, s *stand, p protocol) {
		group := map[string]string{"group": "pod", "io.containerd.runc.v2.group": "pod"}
		s.makeBundle("pod", group)
		s.makeBundle("app", group)
		r := s.mustStart(p, "pod")
		if got, err := s.start(p, "app"); err != nil || got.Address != r.Address || got.Version != r.Version {
			t.Fatalf("the second container got %v, %v; want the pod's address %s", got, err, r.Address)
		}
		pid := s.delegatePID()
		shim := s.shimPID("pod")
		var c taskapi.ConnectResponse
		if err := s.call(r.Address, r.Version, "Connect", &taskapi.ConnectRequest{ID: "none"}, &c); err != nil {
			t.Fatal(err)
		}
		if int(c.ShimPid) != pid {
			t.Errorf("delegate's pid was found to be %d, it says %d", pid, c.ShimPid)
		}
		checkAddressFiles(t, s, p, r.Address)
		if st := s.podState(); st.Delegate.Address == r.Address {
			t.Error("containerd was given the delegate's own address")
		}
		s.shutdown(r.Address, r.Version)
		eventually(t, "delegate and shim end", func() bool { return !alive(pid) && !alive(shim) })
		s.mustDelete("app")
		s.mustDelete("pod")
	})
}

// What containerd 1.7 reads after a restart leads to us, whatever the delegate wrote there.
func checkAddressFiles(t *testing.T, s *stand, p protocol, address string) {
	t.Helper()
	for _, id := range []string{"pod", "app"} {
		data, err := os.ReadFile(filepath.Join(s.bundle(id), "address"))
		if errors.Is(err, os.ErrNotExist) && p == newer {
			continue
		}
		if err != nil || string(data) != address {
			t.Errorf("address in the bundle of %s is %q (%v), want %q", id, data, err, address)
		}
	}
}

// A start that finds what an earlier life of the same container left makes a new pod.
func TestStartOverLeftovers(t *testing.T) {
	s := newStand(t, fakeBinary, "bootstrap")
	s.makeBundle("pod", nil)
	s.mustStart(newer, "pod")
	old, shim := s.delegatePID(), s.shimPID("pod")
	kill(t, shim)
	r := s.mustStart(newer, "pod")
	if alive(old) {
		t.Error("the old delegate still runs")
	}
	if s.delegatePID() == old {
		t.Error("the old delegate is still recorded")
	}
	s.shutdown(r.Address, r.Version)
	eventually(t, "pod ends", func() bool { return len(s.podDirs()) == 0 })
	s.mustDelete("pod")
}

// Delete finds its way with any part of what start left missing, old, new or unreadable.
func TestDeleteFromHalf(t *testing.T) {
	edit := func(change func(m map[string]any)) func(*testing.T, *stand) {
		return func(t *testing.T, s *stand) {
			path := filepath.Join(s.bundle("pod"), recordFile)
			m := map[string]any{}
			if err := readJSON(path, &m); err != nil {
				t.Fatal(err)
			}
			change(m)
			if err := writeJSON(path, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(names ...string) func(*testing.T, *stand) {
		return func(t *testing.T, s *stand) {
			for _, name := range names {
				if err := os.Remove(strings.Replace(name, "BUNDLE", s.bundle("pod"), 1)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, damage := range map[string]func(*testing.T, *stand){
		"nothing":   func(*testing.T, *stand) {},
		"no record": remove("BUNDLE/" + recordFile),
		"broken record": func(t *testing.T, s *stand) {
			if err := os.WriteFile(filepath.Join(s.bundle("pod"), recordFile), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"no state": func(t *testing.T, s *stand) {
			if err := os.Remove(filepath.Join(s.podState().Dir, stateFile)); err != nil {
				t.Fatal(err)
			}
		},
		"no config.json": remove("BUNDLE/config.json"),
		"no lock file": func(t *testing.T, s *stand) {
			if err := os.Remove(filepath.Join(s.podState().Dir, lockFile)); err != nil {
				t.Fatal(err)
			}
		},
		"newer record":   edit(func(m map[string]any) { m["version"] = 99; m["new"] = map[string]any{"a": 1} }),
		"binary renamed": edit(func(m map[string]any) { m["delegate"].(map[string]any)["binary"] = "/nonexistent/shim" }),
		"only bootstrap.json": func(t *testing.T, s *stand) {
			st := s.podState()
			moved := filepath.Join(s.state(), "elsewhere")
			if err := os.Rename(st.Dir, moved); err != nil {
				t.Fatal(err)
			}
			st.Dir = moved
			data, _ := json.Marshal(map[string]any{"version": 3, "address": st.Address, "protocol": "ttrpc"})
			if err := errors.Join(writeJSON(filepath.Join(moved, stateFile), st), os.Remove(filepath.Join(s.bundle("pod"), recordFile)),
				os.WriteFile(filepath.Join(s.bundle("pod"), "bootstrap.json"), data, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, fakeBinary, "json")
			s.makeBundle("pod", nil)
			s.mustStart(older, "pod")
			shim := s.shimPID("pod")
			kill(t, shim)
			damage(t, s)
			s.mustDelete("pod")
		})
	}
}

// After a reboot pids mean nothing: a process that has the delegate's by chance is not killed.
func TestDeleteAfterReboot(t *testing.T) {
	s := newStand(t, fakeBinary, "json")
	s.makeBundle("pod", nil)
	s.mustStart(older, "pod")
	pid, shim := s.delegatePID(), s.shimPID("pod")
	kill(t, shim)
	st := s.podState()
	st.Delegate.Process.BootID = "another"
	if err := writeJSON(filepath.Join(st.Dir, stateFile), st); err != nil {
		t.Fatal(err)
	}
	s.mustDelete("pod")
	if !alive(pid) {
		t.Error("a process of another boot's pid was killed")
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

// While the pod lives, delete of one container leaves the rest alone.
func TestDeleteOfOne(t *testing.T) {
	s := newStand(t, fakeBinary, "plain")
	s.makeBundle("pod", map[string]string{"group": "pod"})
	s.makeBundle("app", map[string]string{"group": "pod"})
	r := s.mustStart(older, "pod")
	s.mustStart(older, "app")
	s.mustDelete("app")
	var c taskapi.ConnectResponse
	if err := s.call(r.Address, r.Version, "Connect", &taskapi.ConnectRequest{}, &c); err != nil {
		t.Fatalf("the pod died with one container: %v", err)
	}
	if want := "app alive=true lost=false"; !strings.Contains(s.losses(), want) {
		t.Errorf("losses:\n%swant a line %q", s.losses(), want)
	}
	s.shutdown(r.Address, r.Version)
	eventually(t, "pod ends", func() bool { return len(s.podDirs()) == 0 })
}

// Starts of the same group at the same time: one pod.
func TestRace(t *testing.T) {
	for _, form := range []string{"plain", "bootstrap"} {
		t.Run(form, func(t *testing.T) {
			s := newStand(t, fakeBinary, form)
			const n = 8
			addresses := make([]string, n)
			for i := range n {
				s.makeBundle(fmt.Sprintf("c%d", i), map[string]string{"group": "pod"})
			}
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					if r, err := s.start(newer, fmt.Sprintf("c%d", i)); err != nil {
						t.Error(err)
					} else {
						addresses[i] = r.Address
					}
				})
			}
			wg.Wait()
			slices.Sort(addresses)
			if got := slices.Compact(addresses); len(got) != 1 {
				t.Errorf("addresses: %q, want one", got)
			}
			st := s.podState()
			s.shutdown(st.Address, st.Delegate.Version)
			eventually(t, "pod ends", func() bool { return len(s.podDirs()) == 0 })
		})
	}
}

// A start that fails leaves nothing (checkLeaks), and says what the delegate said.
func TestStartFails(t *testing.T) {
	for name, c := range map[string]struct {
		form, want  string
		annotations map[string]string
	}{
		"delegate fails":   {"json", "told to fail", map[string]string{"fail": "yes"}},
		"delegate of grpc": {"grpc", "only ttrpc", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, fakeBinary, c.form)
			s.makeBundle("pod", c.annotations)
			if _, err := s.start(older, "pod"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			for _, f := range sockets(s.path("s")) { // the fake's, which it does not remove
				os.Remove(f)
			}
		})
	}
}

func sockets(dir string) []string {
	var found []string
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		if e.Type()&os.ModeSocket != 0 {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}

func TestEvents(t *testing.T) {
	s := newStand(t, fakeBinary, "bootstrap")
	s.makeBundle("pod", nil)
	r := s.mustStart(newer, "pod")
	if err := s.call(r.Address, r.Version, "Create", &taskapi.CreateTaskRequest{ID: "pod"}, &taskapi.CreateTaskResponse{}); err != nil {
		t.Fatal(err)
	}
	if err := s.call(r.Address, r.Version, "Delete", &taskapi.DeleteRequest{ID: "pod"}, &taskapi.DeleteResponse{}); err != nil {
		t.Fatal(err)
	}
	// A delegate is not kept for long by a containerd that is slow.
	eventually(t, "all events are there", func() bool { return len(s.events.all()) >= 2 })
	if got, want := s.events.all(), []string{"/tasks/create", "/tasks/delete"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	s.shutdown(r.Address, r.Version)
	eventually(t, "pod ends", func() bool { return len(s.podDirs()) == 0 })
}

// TERM ends the daemon as it ends a shim; the delegate is containerd's delete's to end.
func TestTerm(t *testing.T) {
	s := newStand(t, fakeBinary, "bootstrap")
	s.makeBundle("pod", nil)
	s.mustStart(newer, "pod")
	pid, shim := s.delegatePID(), s.shimPID("pod")
	if err := unix.Kill(shim, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "shim ends", func() bool { return !alive(shim) })
	if !alive(pid) {
		t.Error("the delegate was ended by the shim")
	}
	s.mustDelete("pod")
	if alive(pid) {
		t.Error("the delegate outlived delete")
	}
}

func TestInfo(t *testing.T) {
	s := newStand(t, fakeBinary, "bootstrap")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-info")
	cmd.Env = s.env()
	out, err := cmd.Output()
	if err != nil || string(out) != "info:" {
		t.Errorf("-info: %q, %v; want what the delegate prints", out, err)
	}
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe", "-info")
	cmd.Env = s.env()
	cmd.Stdin = strings.NewReader("\x0a\x01x\x12\x01y") // an Any of type "x"
	if out, err := cmd.Output(); err == nil {
		t.Errorf("-info with options of a type that is not ours: %q, want an error", out)
	}
}
