// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

// protocol is a start protocol of containerd's.
type protocol string

const (
	older protocol = "1.7 to 2.2"
	newer protocol = "2.3 and later"
)

// stand is a node: it does what containerd does with a shim.
type stand struct {
	t        *testing.T
	dir      string
	delegate string // binary
	form     string // of the fake delegate
	events   *sink
}

func newStand(t *testing.T, delegateBinary, form string) *stand {
	t.Helper()
	// Sockets have short paths.
	dir, err := os.MkdirTemp("/tmp", "mb-")
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t, dir: dir, delegate: delegateBinary, form: form}
	t.Cleanup(func() { s.checkLeaks(); os.RemoveAll(dir) })
	s.events = newSink(t, s.path("ttrpc.sock"))
	return s
}

func (s *stand) path(name string) string    { return filepath.Join(s.dir, name) }
func (s *stand) bundle(id string) string    { return filepath.Join(s.dir, "bundles", id) }
func (s *stand) state() string              { return s.path("state") }
func (s *stand) podDirs() []os.DirEntry     { d, _ := os.ReadDir(s.state()); return d }
func (s *stand) losses() string             { b, _ := os.ReadFile(s.path("losses")); return string(b) }
func (s *stand) taskService(v int32) string { return fmt.Sprintf("containerd.task.v%d.Task", v) }

// makeBundle makes a bundle as containerd does, with its log FIFO open.
func (s *stand) makeBundle(id string, annotations map[string]string) {
	s.t.Helper()
	if err := os.MkdirAll(s.bundle(id), 0o711); err != nil {
		s.t.Fatal(err)
	}
	spec, err := json.Marshal(map[string]any{"ociVersion": "1.1.0", "annotations": annotations})
	if err == nil {
		err = os.WriteFile(filepath.Join(s.bundle(id), "config.json"), spec, 0o600)
	}
	if err == nil { // what runc's shim of 1.7 writes in Create, without which its delete fails
		err = os.WriteFile(filepath.Join(s.bundle(id), "runtime"), []byte("runc"), 0o600)
	}
	if err == nil {
		err = unix.Mkfifo(filepath.Join(s.bundle(id), "log"), 0o700)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(s.bundle(id), "log"), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		data, _ := io.ReadAll(f)
		if s.t.Failed() {
			s.t.Logf("log of %s:\n%s", id, data)
		}
	})
	s.t.Cleanup(func() { f.SetReadDeadline(time.Now()); wg.Wait(); f.Close() })
}

// shim runs the shim as containerd does.
func (s *stand) shim(stdin []byte, id, action string) ([]byte, error) {
	args := []string{"-namespace", "test", "-address", s.path("grpc.sock"), "-publish-binary", "/bin/true", "-id", id}
	if action == "delete" {
		args = append(args, "-bundle", s.bundle(id))
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, action)...)
	cmd.Dir = s.bundle(id)
	cmd.Env = s.env()
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w", stderr.String(), err)
	} else if stderr.Len() > 0 && action == "start" {
		s.t.Errorf("start printed to standard error, which containerd 1.7 takes for the address: %s", stderr.String())
	}
	return stdout.Bytes(), err
}

func (s *stand) env() []string {
	return append(os.Environ(), "GOMAXPROCS=2", "MAX_SHIM_VERSION=2", "NAMESPACE=test",
		"TTRPC_ADDRESS="+s.path("ttrpc.sock"), "GRPC_ADDRESS="+s.path("grpc.sock"),
		roleEnv+"=1", stateEnv+"="+s.state(), delegateEnv+"="+s.delegate, fakeForm+"="+s.form, lossEnv+"="+s.path("losses"))
}

func (s *stand) start(p protocol, id string) (*bootapi.BootstrapResult, error) {
	var stdin []byte
	if p == newer {
		dir := s.path("s")
		data, err := proto.Marshal(&bootapi.BootstrapParams{
			InstanceID: id, Namespace: "test", ContainerdGrpcAddress: s.path("grpc.sock"),
			ContainerdTtrpcAddress: s.path("ttrpc.sock"), ContainerdBinary: "/bin/true", SocketDir: &dir,
		})
		if err != nil {
			s.t.Fatal(err)
		}
		stdin = data
	}
	out, err := s.shim(stdin, id, "start")
	if err != nil {
		return nil, err
	}
	return delegate.ParseResult(out)
}

func (s *stand) mustStart(p protocol, id string) *bootapi.BootstrapResult {
	s.t.Helper()
	r, err := s.start(p, id)
	if err != nil {
		s.t.Fatalf("start of %s: %v", id, err)
	}
	return r
}

func (s *stand) mustDelete(id string) {
	s.t.Helper()
	out, err := s.shim(nil, id, "delete")
	if err != nil {
		s.t.Fatalf("delete of %s: %v", id, err)
	}
	var r taskapi.DeleteResponse
	if err := proto.Unmarshal(out, &r); err != nil || r.ExitStatus != 137 {
		s.t.Errorf("delete of %s answered %x (%v), want exit status 137", id, out, err)
	}
}

// call makes a call as containerd's client does.
func (s *stand) call(address string, version int32, method string, in, out proto.Message) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	return proxy.Invoke(ctx, proxy.DialUnix(address), s.taskService(version), method, in, out)
}

// shutdown asks the delegate to end. A ttrpc server that shuts down may close the connection before it has answered
// (it takes one with its first call under way for idle), which containerd knows and accepts.
func (s *stand) shutdown(address string, version int32) {
	s.t.Helper()
	err := s.call(address, version, "Shutdown", &taskapi.ShutdownRequest{}, &emptypb.Empty{})
	if err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		s.t.Fatal(err)
	}
}

// pids returns the processes whose command line names this stand's directory, and is not ours.
func (s *stand) pids(substr ...string) []int {
	var pids []int
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		cmd, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if pid == os.Getpid() || !bytes.Contains(env, []byte(s.dir)) {
			continue
		}
		line := strings.ReplaceAll(string(cmd), "\x00", " ")
		match := true
		for _, sub := range substr {
			match = match && strings.Contains(line, sub)
		}
		if match {
			pids = append(pids, pid)
		}
	}
	return pids
}

// one returns the one process that matches.
func (s *stand) one(substr ...string) int {
	s.t.Helper()
	pids := s.pids(substr...)
	if len(pids) != 1 {
		s.t.Fatalf("%d processes match %q, want one", len(pids), substr)
	}
	return pids[0]
}

// shimPID and delegatePID are the daemons of the pod whose start was for id.
func (s *stand) shimPID(id string) int { return s.one("-id "+id, "serve") }
func (s *stand) delegatePID() int {
	s.t.Helper()
	st := s.podState()
	return st.Delegate.Process.PID
}

func (s *stand) podState() *State {
	s.t.Helper()
	dirs := s.podDirs()
	if len(dirs) != 1 {
		s.t.Fatalf("%d pod directories, want one", len(dirs))
	}
	st, err := ReadState(filepath.Join(s.state(), dirs[0].Name()))
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends a process and waits until all of it is gone: while its threads die it is a zombie that still listens.
func kill(t *testing.T, pid int) {
	t.Helper()
	p, err := delegate.Identify(pid)
	if err == nil {
		err = p.Kill(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func alive(pid int) bool {
	p, err := delegate.Identify(pid)
	return err == nil && p.Alive()
}

// checkLeaks is the end of every scenario: no process, no socket, no directory.
func (s *stand) checkLeaks() {
	t := s.t
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) && (len(s.pids()) > 0 || len(s.podDirs()) > 0) {
		time.Sleep(10 * time.Millisecond)
	}
	for _, pid := range s.pids() {
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		t.Errorf("process %d is left: %s", pid, bytes.ReplaceAll(cmd, []byte{0}, []byte{' '}))
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	left, _ := filepath.Glob(s.state() + "/*")
	socks, _ := filepath.Glob(s.path("s") + "/*")
	for _, name := range append(left, socks...) {
		t.Errorf("left on disk: %s", name)
	}
}

// sink is containerd's side of events.
type sink struct {
	mu     sync.Mutex
	topics []string
	server *ttrpc.Server
}

func newSink(t *testing.T, path string) *sink {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	k := &sink{}
	if k.server, err = ttrpc.NewServer(); err != nil {
		t.Fatal(err)
	}
	k.server.RegisterService("containerd.services.events.ttrpc.v1.Events", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Forward": func(_ context.Context, unmarshal func(any) error) (any, error) {
			var r eventsapi.ForwardRequest
			if err := unmarshal(&r); err != nil {
				return nil, err
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			k.topics = append(k.topics, r.Envelope.Topic)
			return &emptypb.Empty{}, nil
		},
	}})
	go func() { _ = k.server.Serve(context.Background(), l) }()
	t.Cleanup(func() { k.server.Close() })
	return k
}

func (k *sink) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.topics...)
}
