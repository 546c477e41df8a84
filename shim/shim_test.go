// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

func TestInterceptTakesWhatItChanges(t *testing.T) {
	s := &Service{}
	for _, test := range []struct {
		service, method string
		taken           bool
	}{
		{"containerd.task.v2.Task", "Create", true},
		{"containerd.task.v3.Task", "Create", true},
		{"containerd.task.v3.Task", "Start", true},
		{"containerd.task.v3.Task", "Exec", true},
		{"containerd.task.v3.Task", "Update", true},
		{"containerd.task.v3.Task", "Delete", true},
		{"containerd.task.v3.Task", "State", false},
		{"containerd.task.v3.Task", "Kill", false},
		{"containerd.task.v4.Task", "Future", false},
		{"containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox", false},
	} {
		if got := s.Intercept(&proxy.Call{Service: test.service, Method: test.method}) != nil; got != test.taken {
			t.Errorf("%s/%s: taken %v, want %v", test.service, test.method, got, test.taken)
		}
	}
}

// An id becomes part of paths, so it must be a name, and one container has it at a time.
func TestReserve(t *testing.T) {
	s := &Service{containers: map[string]*container{}}
	for _, id := range []string{"", ".", "..", "a/b", "/a", "../../etc"} {
		if err := s.reserve(id); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v, want an invalid argument", id, err)
		}
	}
	if err := s.reserve("c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.reserve("c1"); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("twice: %v, want that it exists", err)
	}
	if _, err := s.lookup("c1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a container that is being created can be used: %v", err)
	}
	s.Close()
	if err := s.reserve("c2"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// Fields that are newer than our API survive a change.
func TestForwardKeepsUnknownFields(t *testing.T) {
	raw, err := proto.Marshal(&taskapi.CreateTaskRequest{ID: "c1", Bundle: "/b"})
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, 0xfa, 0x3e, 3, 'n', 'e', 'w') // field 1007, a string
	var req taskapi.CreateTaskRequest
	if err := decode(raw, &req); err != nil {
		t.Fatal(err)
	}
	req.Options = &anypb.Any{TypeUrl: "x"}
	if out, err := proto.Marshal(&req); err != nil || !strings.Contains(string(out), "\xfa\x3e\x03new") {
		t.Errorf("unknown field is gone: %q %v", out, err)
	}
	if err := decode([]byte{0xff}, &req); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("garbage: %v", err)
	}
}

func TestNotStartedSpeaksLikeTheDelegate(t *testing.T) {
	for _, test := range []struct {
		l    *launch
		err  error
		want string
	}{
		{
			&launch{}, &rendezvous.ExecError{Stage: plan.StageNotFound, Arg: "x"},
			`OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "x": executable file not found in $PATH`,
		},
		{
			&launch{exec: "e"}, &rendezvous.ExecError{Stage: plan.StageExecutable, Arg: "/x", Errno: syscall.EACCES, Exec: true},
			`OCI runtime exec failed: exec failed: unable to start container process: exec: "/x": permission denied`,
		},
		{
			&launch{}, rendezvous.ErrDied,
			"metsuke: the workload was not started: launcher ended before it became the workload",
		},
	} {
		if got := notStarted(test.l, test.err).Error(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

type nowhere struct{}

func (nowhere) Append(*audit.Event) error { return nil }

func TestExitEvent(t *testing.T) {
	watch, err := supervisor.New(supervisor.Options{Program: &seccomp.Program{}, Sink: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for _, test := range []struct {
		name      string
		status    uint32
		oom, lost bool
		want      audit.Exit
	}{
		{"own", 3, false, false, audit.Exit{Status: 3}},
		{"signal", 143, false, false, audit.Exit{Status: 143, Signal: "SIGTERM"}},
		{"killed", 137, false, false, audit.Exit{Status: 137, Signal: "SIGKILL"}},
		{"oom", 137, true, false, audit.Exit{Status: 137, Signal: "SIGKILL", Cause: audit.CauseOOM}},
		{"lost", 137, true, true, audit.Exit{Status: 137, Signal: "SIGKILL", Cause: audit.CauseLoss}},
		{"oom and then its own end", 1, true, false, audit.Exit{Status: 1}},
		{"pod's profile", 159, false, false, audit.Exit{Status: 159, Signal: "SIGSYS", Cause: audit.CausePodSeccomp}},
		{"no signal", 255, false, false, audit.Exit{Status: 255}},
	} {
		c := &container{super: &hosted{watch: watch}, oom: test.oom, lost: test.lost}
		if got := c.exitEvent("", test.status, time.Unix(1, 0)); *got.Exit != test.want || got.Kind != audit.KindExit {
			t.Errorf("%s: %+v, want %+v", test.name, *got.Exit, test.want)
		}
	}
}

// What the delegate sends is looked at and always passed on, whatever it is.
func TestObserveForwardsEverything(t *testing.T) {
	s := &Service{containers: map[string]*container{"pause": nil}}
	exit, err := proto.Marshal(&eventsapi.TaskExit{ContainerID: "pause", ID: "pause"})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []*anypb.Any{
		nil,
		{TypeUrl: "containerd.events.TaskOOM", Value: []byte{0xff}},
		{TypeUrl: "containerd.events.TaskExit", Value: exit},
		{TypeUrl: "types.containerd.io/containerd.events.TaskExit", Value: []byte{8}},
		{TypeUrl: "new"},
	} {
		if !s.Observe("/tasks/x", event) {
			t.Errorf("%v is not forwarded", event)
		}
	}
}

// Users see no event of a resident's session, whatever its delegate says of one (runtime-rs tells of the end alone), and all others.
func TestObserveHidesResidents(t *testing.T) {
	s := &Service{containers: map[string]*container{}}
	for _, id := range []string{residentPrefix + "ABC", "shell"} {
		for topic, event := range map[string]proto.Message{
			"/tasks/exec-added":   &eventsapi.TaskExecAdded{ContainerID: "c", ExecID: id},
			"/tasks/exec-started": &eventsapi.TaskExecStarted{ContainerID: "c", ExecID: id},
			"/tasks/exit":         &eventsapi.TaskExit{ContainerID: "c", ID: id},
		} {
			if forward := s.Observe(topic, pack(t, event)); forward != (id == "shell") {
				t.Errorf("%s of %s is forwarded: %v", topic, id, forward)
			}
		}
	}
}

func TestDelegateConfig(t *testing.T) {
	cfg := config.Default()
	cfg.Delegate.Runc.BinaryName = "/usr/sbin/runc"
	cfg.Delegate.Runc.SystemdCgroup = true
	got := delegateConfig(&cfg.Delegate)
	if got.RuntimeType != delegate.RuncType || got.Runc.BinaryName != "/usr/sbin/runc" || !got.Runc.SystemdCgroup || got.ConfigPath != "" {
		t.Errorf("runc: %+v", got)
	}
	got = delegateConfig(&config.Delegate{RuntimeType: "io.containerd.kata.v2", Kata: &config.KataOptions{ConfigPath: "/k.toml"}})
	if got.Runc != nil || got.ConfigPath != "/k.toml" {
		t.Errorf("kata: %+v", got)
	}
}
