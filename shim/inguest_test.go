// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/resident"
)

var kataTraits = delegate.Config{RuntimeType: "io.containerd.kata.v2"}.Traits()

// Kata says that each container's first process is the VMM. When a container is to be killed and Kata does not do it, the VM
// and the pod's other containers stay.
func TestVMMIsNotKilled(t *testing.T) {
	vmm := exec.Command("sleep", "infinity")
	if err := vmm.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Service{traits: kataTraits, Options: Options{Pod: &bootstrap.Pod{}}}
	s.Pod.Delegate.Address = "unix://" + t.TempDir() + "/gone"
	c := &container{id: "c", super: &inGuest{}, init: &initProcess{}, starts: map[string]*launch{"": {}}}
	_, err := s.createPrepared(t.Context(), c, &taskapi.CreateTaskRequest{ID: "c"}, func(context.Context, []byte) ([]byte, error) {
		return proto.Marshal(&taskapi.CreateTaskResponse{Pid: uint32(vmm.Process.Pid)})
	})
	if err != nil {
		t.Error(err)
	}
	s.kill(c, "")
	c.mu.Lock()
	c.over = true // it tries no longer
	c.mu.Unlock()
	// A SIGKILL would have been first.
	if err := vmm.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = vmm.Wait()
	if status := vmm.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("the VMM was ended by %v", status.Signal())
	}
}

// lagging is a supervision that learns in drain that a rule killed.
type lagging struct {
	supervision
	kills uint64
}

func (l *lagging) drain()         { l.kills++ }
func (l *lagging) killed() uint64 { return l.kills }

// The last events of a container, which come before its exit record, say what its end was caused by.
func TestCauseAfterLastEvents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pod", "c")
	w, err := stream.OpenWriter(dir, audit.Identity{Container: "c"}, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &container{id: "c", super: &lagging{}, stream: w, init: &initProcess{}, exited: make(chan struct{})}
	s := &Service{containers: map[string]*container{"c": c}}
	tell(t, s, "TaskExit", &eventsapi.TaskExit{ContainerID: "c", ID: "c", ExitStatus: 137})
	<-c.exited
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ends(t, dir); got != "exit:"+audit.CauseProfile {
		t.Errorf("records %q", got)
	}
}

// restored is a supervision that notes what is asked of it.
type restored struct {
	supervision
	asked []*specs.LinuxResources
	fail  error
}

func (r *restored) canControl(context.Context, *specs.LinuxResources) error { return nil }
func (r *restored) control(ctx context.Context, asked *specs.LinuxResources) ([]cgroups.Found, error) {
	r.asked = append(r.asked, asked)
	return nil, errors.Join(r.fail, ctx.Err())
}

// An Update whose caller goes away, or that the delegate fails, may have lifted limits all the same: they are put back.
func TestUpdateThatFails(t *testing.T) {
	for _, fail := range []error{nil, errors.New("not restored")} {
		super := &restored{fail: fail}
		c := &container{id: "c", super: super, current: &specs.LinuxResources{}}
		s := &Service{
			traits: kataTraits, version: cgroups.V2, containers: map[string]*container{"c": c},
			Options: Options{Config: &config.Config{Supervisor: config.Supervisor{Placement: config.PlacementGuest}}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		call := taskCall(t, "Update", &taskapi.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte(`{"pids":{"limit":9}}`)}})
		_, err := s.Intercept(call)(ctx, call, func(ctx context.Context, _ []byte) ([]byte, error) {
			cancel()
			return nil, errors.Join(errors.New("the delegate failed"), ctx.Err())
		})
		if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the delegate failed") || fail != nil && !errors.Is(err, fail) {
			t.Errorf("Update: %v", err)
		}
		if len(super.asked) != 1 || super.asked[0].Pids != nil || c.current.Pids != nil {
			t.Errorf("asked to put back %+v, remembered %+v", super.asked, c.current)
		}
	}
}

// What is updated before a container's start is what its resident puts in force first; later it is asked to.
func TestUpdateBeforeStart(t *testing.T) {
	pids := func(n int64) *specs.LinuxResources { return &specs.LinuxResources{Pids: pidsLimit(n)} }
	g := &inGuest{traits: kataTraits, settings: cgroups.Settings(pids(9), kataTraits.LimitsDropped, channel.ResidentTasks)}
	var err error
	if g.resident, err = resident.New(resident.Config{
		Container: "c", Helper: "/h", ExecID: "e", Dir: t.TempDir(), Invoke: (&Service{}).ask, Sink: &stream.Writer{},
		Start:  channel.Start{Program: []byte("p"), Credit: eventCredit},
		OnLoss: func(audit.Loss) {}, OnKillInit: func() {},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.control(t.Context(), pids(7)); err != nil {
		t.Error(err)
	}
	if got := g.begin(); len(got) != 1 || got[0] != (channel.Setting{File: "pids.max", Value: "55"}) {
		t.Errorf("told %v", got)
	}
	if _, err := g.control(t.Context(), pids(5)); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("error %v: the resident was not asked", err)
	}
}

// A container that the delegate does not kill, and that nobody else can, is tried again until the delegate does.
func TestKillIsTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "delegate")
	s := &Service{traits: kataTraits, Options: Options{Pod: &bootstrap.Pod{}}}
	s.Pod.Delegate.Address, s.Pod.Delegate.Version = "unix://"+path, 2
	c := &container{id: "c", init: &initProcess{}, exited: make(chan struct{})}
	s.kill(c, "") // nobody is there

	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	kills := make(chan *taskapi.KillRequest, 1)
	server.RegisterService("containerd.task.v2.Task", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Kill": func(_ context.Context, decode func(any) error) (any, error) {
			var req taskapi.KillRequest
			err := decode(&req)
			kills <- &req
			return &emptypb.Empty{}, err
		},
	}})
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), listener) }()
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	}()
	select {
	case req := <-kills:
		if req.ID != "c" || req.Signal != uint32(syscall.SIGKILL) || !req.All {
			t.Errorf("killed %+v", req)
		}
	case <-time.After(time.Minute):
		t.Error("not tried again")
	}
	close(c.exited)
}
