// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/proxy"
)

// What Kata's shims and agent get, and what they must not get.

const kataConfig = "/opt/kata/configuration.toml"

// kataService is the service of a pod before a delegate of Kata's, with the built-in profiles.
func kataService(t *testing.T, change func(*config.Config)) *Service {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Delegate = config.Delegate{
		RuntimeType: "io.containerd.kata.v2", Binary: "containerd-shim-kata-v2", Kata: &config.KataOptions{ConfigPath: kataConfig},
	}
	cfg.Supervisor = config.Supervisor{Placement: config.PlacementGuest, Helper: filepath.Join(dir, "helper")}
	cfg.Directories = config.Directories{
		Profiles: filepath.Join(dir, "profiles"), Audit: filepath.Join(dir, "audit"), State: filepath.Join(dir, "state"), ProfilesNamed: true,
	}
	cfg.Audit.Key = filepath.Join(dir, "key.pem")
	for _, d := range []string{cfg.Directories.Profiles, cfg.Directories.Audit, cfg.Directories.State} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(cfg.Supervisor.Helper, []byte("helper"), 0o711); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cfg)
	}
	s, err := New(Options{Config: cfg, Pod: &bootstrap.Pod{
		State:    bootstrap.State{Namespace: "k8s.io", ID: "pod", Dir: cfg.Directories.State},
		Settings: bootstrap.Settings{Delegate: delegateConfig(&cfg.Delegate), StateDir: cfg.Directories.State},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// podSpec is a specification as containerd's CRI writes it, with the pod's filter, which has an action without errno. typ is
// sandbox or container.
func podSpec(typ string, change func(*specs.Spec)) *specs.Spec {
	s := &specs.Spec{
		Version: "1.2.0",
		Process: &specs.Process{Args: []string{"/pause"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}},
		Root:    &specs.Root{Path: "rootfs"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Annotations: map[string]string{
			"io.kubernetes.cri.container-type": typ, "io.kubernetes.cri.sandbox-id": "pod", "io.kubernetes.cri.sandbox-namespace": "default",
			"io.kubernetes.cri.sandbox-name": "p", "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.sandbox-memory": "268435456",
		},
		Linux: &specs.Linux{
			CgroupsPath: "/pod/c",
			Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"swapon"}, Action: specs.ActErrno},
			}},
		},
	}
	if typ == "container" {
		s.Annotations["io.kubernetes.cri.container-name"] = "c"
	}
	if change != nil {
		change(s)
	}
	return s
}

// created is what came to the delegate of one Create.
type created struct {
	spec specs.Spec
	req  taskapi.CreateTaskRequest
}

// bundleDir makes a bundle.
func bundleDir(t *testing.T, spec *specs.Spec) string {
	t.Helper()
	dir := t.TempDir()
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kataCreate has s create a container; the delegate answers with fail. got is nil if it was not asked.
func kataCreate(t *testing.T, s *Service, spec *specs.Spec, asked *anypb.Any, fail error) (got *created, dir string, err error) {
	t.Helper()
	dir = bundleDir(t, spec)
	call := taskCall(t, "Create", &taskapi.CreateTaskRequest{ID: "c", Bundle: dir, Options: asked})
	_, err = s.Intercept(call)(t.Context(), call, func(_ context.Context, payload []byte) ([]byte, error) {
		got = &created{}
		raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err := errors.Join(err, proto.Unmarshal(payload, &got.req), json.Unmarshal(raw, &got.spec)); err != nil {
			t.Error(err)
		}
		if fail != nil {
			return nil, fail
		}
		return proto.Marshal(&taskapi.CreateTaskResponse{Pid: uint32(os.Getpid())}) // as the VMM's
	})
	return got, dir, err
}

// The agent gets no filter, neither the pod's nor another: ours has the pod's in it. It gets the resources and capabilities that
// it cannot do without, and the delegate gets the options of its own and no others.
func TestKataGets(t *testing.T) {
	own := pack(t, &runtimeoptions.Options{TypeUrl: "metsuke.dev/config", ConfigPath: "/etc/metsuke/kata.toml", ConfigBody: []byte("x")})
	for _, typ := range []string{"sandbox", "container"} {
		for name, asked := range map[string]*anypb.Any{"none": nil, "ours": own, "runc's": pack(t, &options.Options{IoUid: 7, BinaryName: "/x"})} {
			t.Run(typ+", options "+name, func(t *testing.T) {
				s := kataService(t, nil)
				got, _, err := kataCreate(t, s, podSpec(typ, nil), asked, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got.spec.Linux.Seccomp != nil {
					t.Errorf("the agent gets a filter: %+v", got.spec.Linux.Seccomp)
				}
				if got.spec.Linux.Resources == nil || got.spec.Process.Capabilities == nil {
					t.Errorf("resources %v, capabilities %v", got.spec.Linux.Resources, got.spec.Process.Capabilities)
				}
				if !slices.Contains(got.spec.Process.Capabilities.Bounding, "CAP_SYS_PTRACE") {
					t.Errorf("capabilities %v", got.spec.Process.Capabilities)
				}
				var o runtimeoptions.Options
				if err := proto.Unmarshal(got.req.Options.GetValue(), &o); err != nil || got.req.Options.GetTypeUrl() != "runtimeoptions.v1.Options" ||
					!proto.Equal(&o, &runtimeoptions.Options{ConfigPath: kataConfig}) {
					t.Errorf("options %v: %v, %v", got.req.Options.GetTypeUrl(), &o, err)
				}
				launched := len(got.spec.Process.Args) > 1 && strings.HasPrefix(got.spec.Process.Args[0], "/.metsuke-")
				memory := got.spec.Annotations["io.kubernetes.cri.sandbox-memory"]
				if pause := typ == "sandbox"; launched == pause || (memory == "301989888") != pause {
					t.Errorf("arguments %q, VM of %s bytes", got.spec.Process.Args, memory)
				}
			})
		}
	}
}

// What could weaken the guest never reaches the delegate, in a pause container or another, and leaves nothing behind.
func TestKataNeverGets(t *testing.T) {
	const params = "io.katacontainers.config.hypervisor.kernel_params"
	bind := func(from, to string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: to, Type: "bind", Source: from})
		}
	}
	for name, change := range map[string]func(*specs.Spec){
		"kernel parameters":  func(s *specs.Spec) { s.Annotations[params] = "agent.debug_console" },
		"another pod":        func(s *specs.Spec) { s.Annotations["io.kubernetes.cri-o.SandboxID"] = "other" },
		"cgroups":            bind("/sys/fs/cgroup", "/cg"),
		"the guest's files":  bind("/", "/dev/pts"),
		"a filter not known": func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = "SCMP_ACT_TOMORROW" },
	} {
		for _, typ := range []string{"sandbox", "container"} {
			if name == "a filter not known" && typ == "sandbox" {
				continue // it runs nothing of the pod's
			}
			t.Run(name+", "+typ, func(t *testing.T) {
				s := kataService(t, nil)
				spec := podSpec(typ, change)
				got, dir, err := kataCreate(t, s, spec, nil, nil)
				if err == nil || got != nil {
					t.Fatalf("created: %+v, %v", got, err)
				}
				untouched(t, s, dir, spec)
			})
		}
	}
	allowed := kataService(t, func(c *config.Config) { c.Delegate.Kata.AllowedAnnotations = []string{params} })
	if _, _, err := kataCreate(t, allowed, podSpec("container", func(s *specs.Spec) { s.Annotations[params] = "quiet" }), nil, nil); err != nil {
		t.Errorf("an annotation that the configuration allows: %v", err)
	}
}

// untouched: nothing is left of a Create that failed, and the bundle is as containerd wrote it.
func untouched(t *testing.T, s *Service, dir string, spec *specs.Spec) {
	t.Helper()
	if _, err := s.lookup("c"); err == nil {
		t.Error("the container is known")
	}
	if _, err := os.Stat(filepath.Join(s.Pod.Dir, "containers", "c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
	want, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || string(raw) != string(want) {
		t.Errorf("config.json is %s, %v", raw, err)
	}
}

// A policy in the guest that refuses the container is told from other errors, and the error keeps the agent's words and code.
func TestPolicyOfTheGuest(t *testing.T) {
	const words = "CreateContainerRequest is blocked by policy: "
	for _, test := range []struct {
		name   string
		err    error
		policy bool
	}{
		{"Go", status.Error(codes.PermissionDenied, words), true},
		{"Go, wrapped", status.Error(codes.Unknown, "failed to create containerd task: rpc error: code = PermissionDenied desc = "+words), true},
		{"runtime-rs", status.Error(codes.Unknown, `Others("failed to handle message create container: Status { code: PERMISSION_DENIED, message: \"`+words+`\" }")`), true},
		{"a file to be copied", status.Error(codes.PermissionDenied, "CopyFileRequest is blocked by policy: "), true},
		{"another", status.Error(codes.Unknown, "no such file or directory"), false},
	} {
		for _, typ := range []string{"sandbox", "container"} {
			t.Run(test.name+", "+typ, func(t *testing.T) {
				s := kataService(t, nil)
				spec := podSpec(typ, nil)
				got, dir, err := kataCreate(t, s, spec, nil, test.err)
				if got == nil || status.Code(err) != status.Code(test.err) || !strings.Contains(err.Error(), status.Convert(test.err).Message()) {
					t.Fatalf("asked %v: %v", got != nil, err)
				}
				if told := strings.Contains(err.Error(), "under a handler of Kata's own"); told != test.policy {
					t.Errorf("what to do is told: %v: %v", told, err)
				}
				untouched(t, s, dir, spec)
			})
		}
	}
	if err := (&Service{}).explain(status.Error(codes.PermissionDenied, "of runc's")); strings.Contains(err.Error(), "guest") {
		t.Errorf("without a VM: %v", err)
	}
}

// An Update lifts the pids limit in Kata's guests, so each is followed by ours, also where the profile has no limits.
func TestUpdateUnderKata(t *testing.T) {
	const unlimited = "apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: unlimited}\nspec:\n  audit: {classes: [exec]}\n"
	for _, profile := range []string{"baseline", "unlimited"} {
		t.Run(profile, func(t *testing.T) {
			s := kataService(t, func(c *config.Config) { c.DefaultProfile = profile })
			if err := os.WriteFile(filepath.Join(s.Config.Directories.Profiles, "p.yaml"), []byte(unlimited), 0o600); err != nil {
				t.Fatal(err)
			}
			limited := func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Pids: pidsLimit(20)} }
			if _, _, err := kataCreate(t, s, podSpec("container", limited), nil, nil); err != nil {
				t.Fatal(err)
			}
			c, err := s.lookup("c")
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range [][2]string{{`{"cpu":{"shares":512}}`, "68"}, {`{"pids":{"limit":10}}`, "58"}, {`{"cpu":{"shares":256}}`, "58"}} {
				in, want := step[0], step[1]
				call := taskCall(t, "Update", &taskapi.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte(in)}})
				if _, err := s.Intercept(call)(t.Context(), call, answerWith(t, &emptypb.Empty{})); err != nil {
					t.Fatal(err)
				}
				var pids []string
				for _, setting := range c.super.(*inGuest).settings {
					if setting.File == "pids.max" {
						pids = append(pids, setting.Value)
					}
				}
				if !slices.Equal(pids, []string{want}) {
					t.Errorf("after %s pids.max is to be %q, want %s (%d of them the resident's)", in, pids, want, channel.ResidentTasks)
				}
			}
			// Once the resident is at work, what it could not restore is not lifted: it is gone or stopped, or would not be asked for that.
			refused := func(in string) {
				t.Helper()
				call := taskCall(t, "Update", &taskapi.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte(in)}})
				if _, err := s.Intercept(call)(t.Context(), call, func(context.Context, []byte) ([]byte, error) {
					t.Errorf("%s reaches the delegate", in)
					return nil, nil
				}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
					t.Errorf("%s: %v", in, err)
				}
			}
			refused(`{"unified":{"memory.high":"1\u00a0"}}`)
			c.super.(*inGuest).begin()
			refused(`{"cpu":{"shares":512}}`)
		})
	}
}

func pidsLimit(n int64) *specs.LinuxPids { return &specs.LinuxPids{Limit: &n} }

// answerWith is a delegate that gives one answer.
func answerWith(t *testing.T, m proto.Message) proxy.Next {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context, []byte) ([]byte, error) { return raw, nil }
}

// CloseIO reaches Kata's shim, which would hold up all of its pod, only when nobody writes to that process's stdin any more.
func TestCloseIO(t *testing.T) {
	dir := t.TempDir()
	c := &container{stdin: map[string]stdin{"": {fifo: filepath.Join(dir, "init")}, "e": {fifo: filepath.Join(dir, "exec")}}}
	writers := map[string]*os.File{}
	for exec, in := range c.stdin {
		path := in.fifo
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		writers[exec] = w
	}
	s := kataService(t, nil)
	s.containers["c"], s.containers["pause"] = c, nil
	defer delete(s.containers, "c")
	reaches := func(req *taskapi.CloseIORequest) bool {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*stdinPoll)
		defer cancel()
		call, reached := taskCall(t, "CloseIO", req), false
		_, err := s.Intercept(call)(ctx, call, func(context.Context, []byte) ([]byte, error) { reached = true; return nil, nil })
		if reached == (err != nil) {
			t.Errorf("%v: reached %v, and %v", req, reached, err)
		}
		return reached
	}
	for _, exec := range []string{"", "e"} {
		req := &taskapi.CloseIORequest{ID: "c", ExecID: exec, Stdin: true}
		if reaches(req) {
			t.Errorf("exec %q: passed on while stdin has a writer", exec)
		}
		writers[exec].Close()
		if !reaches(req) {
			t.Errorf("exec %q: not passed on, though stdin has no writer", exec)
		}
	}
	// A process ends while its CloseIO waits for a client that goes on writing: Kata's shim would wait for that one in its place.
	var err error
	if writers[""], err = os.OpenFile(c.stdin[""].fifo, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	defer writers[""].Close()
	time.AfterFunc(2*stdinPoll, func() { c.endStdin("") })
	call := taskCall(t, "CloseIO", &taskapi.CloseIORequest{ID: "c", Stdin: true})
	for _, when := range []string{"while it is waited for", "before"} {
		if resp, err := s.Intercept(call)(t.Context(), call, func(context.Context, []byte) ([]byte, error) {
			t.Errorf("passed on for a process that has ended %s", when)
			return nil, nil
		}); err != nil || len(resp) != 0 {
			t.Errorf("the process has ended %s: %q, %v", when, resp, err)
		}
	}
	c.forget("") // it was deleted: the delegate's to refuse
	for _, req := range []*taskapi.CloseIORequest{{ID: "c", ExecID: "unknown", Stdin: true}, {ID: "pause", Stdin: true}, {ID: "c"}} {
		if !reaches(req) {
			t.Errorf("%v: not passed on", req)
		}
	}
	if call := taskCall(t, "CloseIO", &taskapi.CloseIORequest{ID: "c", Stdin: true}); (&Service{}).Intercept(call) != nil {
		t.Error("taken from a delegate that does not wait")
	}
}
