// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/cgroups"
)

// fakeKata, in the environment, makes the test binary one of Kata's shims: "go" or "rs", from what both do at start, delete
// and -info in 3.x and 4.1 (src/runtime/pkg/containerd-shim-v2/service.go and utils.go; src/runtime-rs/crates/shim).
const fakeKata = "METSUKE_TEST_FAKE_KATA"

func TestMain(m *testing.M) {
	kind := os.Getenv(fakeKata)
	if kind == "" {
		os.Exit(m.Run())
	}
	if err := (&fake{rust: kind == "rs", sockets: os.Getenv("METSUKE_TEST_SOCKETS")}).main(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type fake struct {
	rust                                            bool
	sockets                                         string // stands for /run/containerd/s
	namespace, id, address, publish, bundle, action string
}

func (f *fake) main(args []string) error {
	if len(args) == 1 && args[0] == "-info" {
		return f.print(f.info())
	}
	if len(args) == 1 && args[0] == "serve" {
		time.Sleep(time.Hour) // fd 3 listens
		return nil
	}
	for len(args) > 1 {
		flag := args[0]
		to, ok := map[string]*string{
			"-namespace": &f.namespace, "-id": &f.id, "-address": &f.address, "-publish-binary": &f.publish, "-bundle": &f.bundle,
		}[flag]
		switch {
		case ok:
			*to, args = args[1], args[2:]
		case flag == "-debug":
			args = args[1:]
		default:
			return fmt.Errorf("flag provided but not defined: %s", flag)
		}
	}
	f.action = strings.Join(args, " ")
	if f.rust && f.publish == "" {
		return errors.New("publish binary argument is empty")
	}
	if os.Getenv("KATA_CONF_FILE") != "" {
		return errors.New("another configuration than the one in the options")
	}
	switch f.action {
	case "start":
		return f.start()
	case "delete":
		return f.delete()
	}
	return fmt.Errorf("invalid action %q", f.action)
}

// socket is where the shim of an id listens: the hash is of the same in both, its spelling is not.
func (f *fake) socket(id string) string {
	sum := sha256.Sum256([]byte(filepath.Join(f.address, f.namespace, id)))
	if f.rust {
		return filepath.Join(f.sockets, fmt.Sprintf("%X", sum))
	}
	return filepath.Join(f.sockets, fmt.Sprintf("%x", sum))
}

// start writes no JSON and no BootstrapResult, and reads nothing.
func (f *fake) start() error {
	config, err := os.ReadFile("config.json")
	if err != nil && (!f.rust || !errors.Is(err, os.ErrNotExist)) {
		return err
	}
	var spec struct{ Annotations map[string]string }
	if err == nil {
		if err := json.Unmarshal(config, &spec); err != nil {
			return err
		}
	}
	if spec.Annotations["io.kubernetes.cri.container-type"] == "container" {
		return f.tell(f.socket(spec.Annotations["io.kubernetes.cri.sandbox-id"]))
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.socket(f.id), Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	file, err := l.File()
	if err != nil {
		return err
	}
	daemon := exec.Command("/proc/self/exe", "serve")
	daemon.ExtraFiles = []*os.File{file}
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := daemon.Start(); err != nil {
		return err
	}
	if err := os.WriteFile("shim.pid", fmt.Append(nil, daemon.Process.Pid), 0o644); err != nil {
		return err
	}
	return f.tell(f.socket(f.id))
}

func (f *fake) tell(path string) error {
	address := "unix://" + path
	if err := os.WriteFile("address", []byte(address), 0o644); err != nil {
		return err
	}
	return f.print([]byte(address), nil)
}

// delete: runtime-rs computes the socket anew, so -address must be that of the start, and kills what shim.pid says.
func (f *fake) delete() error {
	if f.bundle == "" {
		return errors.New("bundle argument is empty")
	}
	if _, err := os.Stat("config.json"); err != nil && !f.rust {
		return err // in the working directory
	}
	if f.rust {
		var pid int
		text, err := os.ReadFile(filepath.Join(f.bundle, "shim.pid"))
		if err == nil {
			_, err = fmt.Sscan(string(text), &pid)
		}
		if err == nil {
			err = errors.Join(syscall.Kill(pid, syscall.SIGKILL), os.Remove(f.socket(f.id)))
		}
		if err != nil {
			return err
		}
	}
	return f.print(proto.Marshal(&taskapi.DeleteResponse{ExitStatus: 128 + 9}))
}

func (f *fake) info() ([]byte, error) {
	info := &types.RuntimeInfo{Name: "io.containerd.kata.v2", Version: &types.RuntimeVersion{Version: "4.1.0"}}
	if f.rust {
		info.Annotations = map[string]string{"containerd.io/runtime-allow-mounts": "mkdir/*,format/*,erofs"}
	}
	return proto.Marshal(info)
}

func (*fake) print(out []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

// newFake returns the binary of a fake and the directory of its sockets.
func newFake(t *testing.T, kind string) (binary, sockets string) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "s") // short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(sockets, "containerd-shim-kata-v2")
	text := fmt.Sprintf("#!/bin/sh\n%s=%s METSUKE_TEST_SOCKETS=%s exec %s \"$@\"\n", fakeKata, kind, sockets, self)
	if err := os.WriteFile(binary, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return binary, sockets
}

func bundleOf(t *testing.T, annotations string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"annotations":{`+annotations+`}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestKata starts a pod and one of its containers with a shim as Kata's, in both start protocols, and deletes it.
func TestKata(t *testing.T) {
	t.Setenv("KATA_CONF_FILE", "/etc/kata-containers/another.toml")
	for _, kind := range []string{"go", "rs"} {
		for _, newer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s newer=%v", kind, newer), func(t *testing.T) {
				binary, sockets := newFake(t, kind)
				cfg := Config{Binary: binary, RuntimeType: "io.containerd.kata.v2", ConfigPath: "/opt/kata/configuration.toml"}
				p := Params{
					Namespace: "k8s.io", ID: "pod", Address: "/run/containerd/containerd.sock", PublishBinary: "/usr/bin/containerd",
					TTRPCAddress: "/run/metsuke/x/events.sock", Bundle: bundleOf(t, `"io.kubernetes.cri.container-type":"sandbox"`),
				}
				if newer {
					p.Bootstrap = &bootapi.BootstrapParams{InstanceID: "pod", ContainerdBinary: "/usr/bin/containerd"}
				}
				pod, err := Start(t.Context(), cfg, p)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = pod.End(t.Context()) })
				checkPod(t, kind, sockets, p, pod)

				c := p
				c.ID = "c1"
				c.Bundle = bundleOf(t, `"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"pod"`)
				container, err := Start(t.Context(), cfg, c)
				if err != nil {
					t.Fatal(err)
				}
				if container.New || container.Process.PID != 0 || container.Address != pod.Address {
					t.Errorf("for a container of the pod it started %+v", container)
				}

				out, err := Delete(t.Context(), binary, p)
				if err != nil {
					t.Fatal(err)
				}
				var deleted taskapi.DeleteResponse
				if err := proto.Unmarshal(out, &deleted); err != nil || deleted.ExitStatus != 137 {
					t.Errorf("deleted: %v, %v", &deleted, err)
				}
				if err := pod.End(t.Context()); err != nil {
					t.Error(err)
				}
				if left, err := filepath.Glob(sockets + "/*"); err != nil || len(left) != 1 || pod.Process.Alive() {
					t.Errorf("left: %v, alive %v", left, pod.Process.Alive())
				}
			})
		}
	}
}

// checkPod: the shim is known, serves, and where it serves is not where a shim does that containerd starts itself.
func checkPod(t *testing.T, kind, sockets string, p Params, pod *Started) {
	t.Helper()
	if !pod.New || !pod.Process.Alive() || pod.Version != 2 || pod.Result.Protocol != "ttrpc" {
		t.Fatalf("started %+v", pod)
	}
	f := fake{rust: kind == "rs", sockets: sockets, namespace: p.Namespace, address: p.Address + ".metsuke"}
	path, err := SocketPath(pod.Address)
	if err != nil || path != f.socket("pod") {
		t.Errorf("it serves at %s, %v", pod.Address, err)
	}
	if diff := cmp.Diff([]string{path}, pod.Sockets); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
	if f.address = p.Address; path == f.socket("pod") {
		t.Errorf("containerd's own shim of this pod would serve at %s", path)
	}
	conn, err := pod.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pod.Process.PID))
	if err != nil || !strings.Contains("\x00"+string(env), "\x00TTRPC_ADDRESS=/run/metsuke/x/events.sock\x00") {
		t.Errorf("its events go elsewhere: %q, %v", env, err)
	}
}

func TestKataRefuses(t *testing.T) {
	p := Params{Namespace: "n", ID: "i", Address: "/c", PublishBinary: "/b", Bundle: t.TempDir()}
	binary, _ := newFake(t, "go")
	if _, err := Start(t.Context(), Config{Binary: binary, RuntimeType: "io.containerd.kata.v2"}, p); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("without a config.json: %v", err)
	}
}

func TestKataInfo(t *testing.T) {
	for kind, want := range map[string]map[string]string{"go": nil, "rs": {"containerd.io/runtime-allow-mounts": "mkdir/*,format/*,erofs"}} {
		binary, _ := newFake(t, kind)
		out, err := Info(t.Context(), Config{Binary: binary, RuntimeType: "io.containerd.kata.v2", ConfigPath: "/k"})
		var info types.RuntimeInfo
		if err != nil || proto.Unmarshal(out, &info) != nil {
			t.Fatalf("%s: %q, %v", kind, out, err)
		}
		if diff := cmp.Diff(want, info.Annotations); diff != "" || info.Version.GetVersion() != "4.1.0" {
			t.Errorf("%s: %v", kind, &info)
		}
	}
}

func TestTraits(t *testing.T) {
	for _, traits := range []Traits{runc, kata} {
		for _, limit := range slices.Concat(traits.LimitsDropped, traits.LimitsForeign) {
			if !cgroups.KnownResource(limit) {
				t.Errorf("%s: %q is no limit", traits.Name, limit)
			}
			if slices.Contains(traits.LimitsDropped, limit) && slices.Contains(traits.LimitsForeign, limit) {
				t.Errorf("%s: the limit %s can be put in force and cannot", traits.Name, limit)
			}
		}
	}
	for runtimeType, want := range map[string]string{
		RuncType: "runc", "io.containerd.kata.v2": "Kata", "io.containerd.kata-qemu.v2": "Kata", "io.containerd.kata-qemu-runtime-rs.v2": "Kata",
	} {
		if got := (Config{RuntimeType: runtimeType}).Traits(); got.Name != want || got.Sandboxed == got.HostPIDs {
			t.Errorf("%s: %+v", runtimeType, got)
		}
	}
}
