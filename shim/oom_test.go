// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/shim/delegate"
)

// Each kill has one record, before the exit that it caused, whatever the order in which the delegate tells.
func TestOOMInEachOrder(t *testing.T) {
	for _, test := range []struct {
		name    string
		counted bool   // the node's kernel counts
		steps   string // start, oom, exit: the delegate's events; kill: the kernel's
		want    string
	}{
		{"told first", true, "create kill oom exit", "oom exit:oom"},
		{"told late", true, "create kill exit oom", "oom exit:oom"},
		{"never told", true, "create kill exit", "oom exit:oom"},
		{"told of a child, then late", true, "create kill oom kill exit oom", "oom oom exit:oom"},
		{"told twice of two at once", true, "create kill kill oom oom exit", "oom exit:oom"},
		{"no kill", true, "create exit", "exit:"},
		{"not counted", false, "create oom oom exit", "oom oom exit:oom"},
		{"not counted, told late", false, "create exit oom", "exit: oom"},
		{"gone before its start was seen", true, "kill oom exit", "oom exit:oom"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			kills := filepath.Join(root, "sys/fs/cgroup/c/memory.events")
			node := map[string]string{
				"proc/self/mountinfo":                      "24 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
				fmt.Sprintf("proc/%d/cgroup", os.Getpid()): "0::/c\n",
				"sys/fs/cgroup/c/memory.events":            "oom_kill 0\n",
			}
			for name, content := range node {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			host, err := cgroups.Detect(root)
			if err != nil {
				t.Fatal(err)
			}
			watch, err := supervisor.New(supervisor.Options{Program: &seccomp.Program{}, Sink: nowhere{}})
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Close()
			dir := filepath.Join(t.TempDir(), "pod", "c")
			w, err := stream.OpenWriter(dir, audit.Identity{Container: "c"}, stream.Options{})
			if err != nil {
				t.Fatal(err)
			}
			c := &container{id: "c", super: &hosted{watch: watch}, stream: w, init: &initProcess{}, exited: make(chan struct{})}
			if err := c.init.found(os.Getpid()); err != nil {
				t.Fatal(err)
			}
			defer c.init.close()
			s := &Service{host: host, traits: delegate.Traits{HostPIDs: test.counted}, containers: map[string]*container{"c": c}}
			killed := 0
			for step := range strings.FieldsSeq(test.steps) {
				switch step {
				case "kill":
					killed++
					if err := os.WriteFile(kills, fmt.Appendf(nil, "oom 9\noom_kill %d\n", killed), 0o600); err != nil {
						t.Fatal(err)
					}
				case "create":
					if s.traits.HostPIDs {
						c.countOOMs(host)
					}
				case "oom":
					tell(t, s, "TaskOOM", &eventsapi.TaskOOM{ContainerID: "c"})
				case "exit":
					tell(t, s, "TaskExit", &eventsapi.TaskExit{ContainerID: "c", ID: "c", ExitStatus: 137})
					<-c.exited
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got := ends(t, dir); got != test.want {
				t.Errorf("records %q, want %q", got, test.want)
			}
		})
	}
}

func tell(t *testing.T, s *Service, kind string, event proto.Message) {
	t.Helper()
	raw, err := proto.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Observe("/tasks/x", &anypb.Any{TypeUrl: "containerd.events." + kind, Value: raw}) {
		t.Errorf("%s is not forwarded", kind)
	}
}

// ends reads a stream as "oom exit:CAUSE".
func ends(t *testing.T, dir string) string {
	t.Helper()
	r, err := segment.OpenReader(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []string
	for {
		line, err := r.Next()
		if err != nil {
			return strings.Join(all, " ")
		}
		switch text := string(line); {
		case strings.Contains(text, `"kind":"oom"`):
			all = append(all, "oom")
		case strings.Contains(text, `"kind":"exit"`):
			_, cause, _ := strings.Cut(text, `"cause":"`)
			cause, _, _ = strings.Cut(cause, `"`)
			all = append(all, "exit:"+cause)
		}
	}
}
