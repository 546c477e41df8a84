// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// residentExec begins the exec ids of residents.
const residentExec = "metsuke-resident-"

// heard collects containerd's events, as text, until the test ends.
type heard struct {
	mu     sync.Mutex
	events []string
}

func listen(ctx context.Context, client *containerd.Client) *heard {
	h := &heard{}
	events, _ := client.Subscribe(ctx)
	go func() {
		for e := range events {
			h.mu.Lock()
			h.events = append(h.events, fmt.Sprintf("%s %s", e.Topic, e.Event.GetValue()))
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *heard) about(text string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.events), func(e string) bool { return !strings.Contains(e, text) })
}

// The resident is a process of the container's for the delegate. For users it is none: they see nothing of it, cannot name it, and
// what they do to all processes of the container does not end it.
func TestResidentIsOutOfSight(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		client, err := h.Containerd()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		events := listen(h.ctx, client)
		p := h.pod(stand.PodConfig{Handler: attacked})
		c := p.run(stand.ContainerConfig{Command: []string{"sleep", "1000"}})
		loaded, err := client.LoadContainer(h.ctx, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		task, err := loaded.Task(h.ctx, nil)
		if err != nil {
			t.Fatal(err)
		}

		if pids, err := task.Pids(h.ctx); err != nil || len(pids) != 1 {
			t.Errorf("the container has processes %v, %v", pids, err)
		}
		if list, err := h.Runtime.ListContainers(h.ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.ID}}); err != nil ||
			len(list.GetContainers()) != 1 {
			t.Errorf("containers %v, %v", list, err)
		}
		if metrics, err := task.Metrics(h.ctx); err != nil {
			t.Error(err)
		} else if n := tasksIn(t, metrics.Data); n != 1 {
			t.Errorf("%d tasks in the metrics", n)
		}
		if _, err := h.Runtime.ContainerStats(h.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: c.ID}); err != nil {
			t.Error(err)
		}

		// By a name that could be its own.
		id := residentExec + strings.Repeat("A", 32)
		service := client.TaskService()
		for name, call := range map[string]func() error{
			"state": func() error {
				_, err := service.Get(h.ctx, &tasks.GetRequest{ContainerID: c.ID, ExecID: id})
				return err
			},
			"start": func() error {
				_, err := service.Start(h.ctx, &tasks.StartRequest{ContainerID: c.ID, ExecID: id})
				return err
			},
			"wait": func() error {
				_, err := service.Wait(h.ctx, &tasks.WaitRequest{ContainerID: c.ID, ExecID: id})
				return err
			},
			"delete": func() error {
				_, err := service.DeleteProcess(h.ctx, &tasks.DeleteProcessRequest{ContainerID: c.ID, ExecID: id})
				return err
			},
			"resize": func() error {
				_, err := service.ResizePty(h.ctx, &tasks.ResizePtyRequest{ContainerID: c.ID, ExecID: id, Width: 1, Height: 1})
				return err
			},
			"close": func() error {
				_, err := service.CloseIO(h.ctx, &tasks.CloseIORequest{ContainerID: c.ID, ExecID: id, Stdin: true})
				return err
			},
			"kill": func() error {
				_, err := service.Kill(h.ctx, &tasks.KillRequest{ContainerID: c.ID, ExecID: id, Signal: uint32(unix.SIGKILL)})
				return err
			},
		} {
			if err := call(); status.Code(err) != codes.NotFound {
				t.Errorf("%s: %v, want not found", name, err)
			}
		}
		_, err = service.Exec(h.ctx, &tasks.ExecProcessRequest{ContainerID: c.ID, ExecID: id, Spec: &anypb.Any{Value: []byte(`{"args":["true"],"cwd":"/"}`)}})
		if err == nil || !strings.Contains(err.Error(), "reserved") {
			t.Errorf("exec: %v, want a refusal", err)
		}

		// And all at once.
		for _, signal := range []unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGPIPE} {
			if err := task.Kill(h.ctx, signal, containerd.WithKillAll); err != nil {
				t.Errorf("%v to all: %v", signal, err)
			}
		}
		c.exec("sh", "-c", "echo x > /tmp/f")
		want(t, p.events("main"), "the file", wrote("/tmp/f"))
		if err := task.Kill(h.ctx, unix.SIGKILL, containerd.WithKillAll); err != nil {
			t.Error(err)
		}
		if status := c.wait(); status.GetExitCode() != 137 {
			t.Errorf("exit status %d", status.GetExitCode())
		}
		p.remove()
		if found := find(p.events("main"), func(e stand.Event) bool { return e.Kind == "loss" || strings.Contains(e.Raw, residentExec) }); len(found) > 0 {
			t.Errorf("in the stream: %s", found[0].Raw)
		}
		h.eventually("the container's end among containerd's events", func() error {
			if len(events.about("/tasks/delete")) == 0 {
				return fmt.Errorf("%d events", len(events.about("")))
			}
			return nil
		})
		if found := events.about(residentExec); len(found) > 0 {
			t.Errorf("events of the resident: %q", found)
		}
	})
}

// tasksIn are the tasks that metrics count; 0 if they do not say.
func tasksIn(t *testing.T, metrics *anypb.Any) uint64 {
	t.Helper()
	var v1 cgroup1.Metrics
	var v2 cgroup2.Metrics
	switch {
	case metrics.MessageIs(&v1):
		if err := metrics.UnmarshalTo(&v1); err != nil {
			t.Fatal(err)
		}
		return v1.GetPids().GetCurrent()
	case metrics.MessageIs(&v2):
		if err := metrics.UnmarshalTo(&v2); err != nil {
			t.Fatal(err)
		}
		return v2.GetPids().GetCurrent()
	}
	t.Fatalf("metrics of type %s", metrics.GetTypeUrl())
	return 0
}
