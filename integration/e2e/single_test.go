// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// A container without a pod, as ctr and nerdctl make it, is held and recorded as those of pods are, and so are its exec sessions.
// Under Kata it has a machine of its own.
func TestSingleContainer(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		const id = "single"
		client, err := h.Containerd()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		if err := h.Pull(h.ctx, stand.ImageBusybox); err != nil {
			t.Fatal(err)
		}
		image, err := client.GetImage(h.ctx, stand.ImageBusybox)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.NewContainer(h.ctx, id, containerd.WithNewSnapshot(id, image),
			containerd.WithNewSpec(oci.WithImageConfig(image),
				oci.WithProcessArgs("sh", "-c", "uname -r; workload syscall getppid; echo x > /file; exec workload pause")),
			containerd.WithRuntime("io.containerd.metsuke.v2", &runtimeoptions.Options{
				TypeUrl: "metsuke.dev/config", ConfigPath: h.ConfigPath(attacked),
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Delete(h.ctx, containerd.WithSnapshotCleanup); err != nil {
				t.Error(err)
			}
		}()
		var out bytes.Buffer
		task, err := c.NewTask(h.ctx, cio.NewCreator(cio.WithStreams(nil, &out, io.Discard)))
		if err != nil {
			t.Fatalf("%v\n%s", err, h.LogTail(20))
		}
		exited, err := task.Wait(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Start(h.ctx); err != nil {
			t.Fatal(err)
		}

		recorded := func() []stand.Event {
			dirs, err := filepath.Glob(filepath.Join(h.AuditDir(attacked), "*"+id+"*", id))
			if err != nil || len(dirs) != 1 {
				t.Fatalf("streams %q, %v", dirs, err)
			}
			events, err := stand.ReadStream(dirs[0])
			if err != nil {
				t.Fatal(err)
			}
			return events
		}
		h.eventually("the file on record", func() error {
			if len(find(recorded(), wrote("/file"))) == 0 {
				return errors.New("it is not")
			}
			return nil
		})
		spec, err := c.Spec(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		process := *spec.Process
		process.Args = []string{"sh", "-c", "echo x > /of-exec; grep -q '^Seccomp:.2' /proc/self/status"}
		session, err := task.Exec(h.ctx, "session", &process, cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		ended, err := session.Wait(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Start(h.ctx); err != nil {
			t.Fatal(err)
		}
		if status := <-ended; status.ExitCode() != 0 {
			t.Errorf("the session: %d, %v", status.ExitCode(), status.Error())
		}
		if _, err := session.Delete(h.ctx); err != nil {
			t.Error(err)
		}

		if err := task.Kill(h.ctx, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if status := <-exited; status.ExitCode() != 137 {
			t.Errorf("exit status %d, %v", status.ExitCode(), status.Error())
		}
		task.IO().Wait() // Delete does not
		if _, err := task.Delete(h.ctx); err != nil {
			t.Error(err)
		}
		if inGuest := !strings.Contains(out.String(), kernelRelease(t)); inGuest != (delegate == stand.Kata) {
			t.Errorf("runs on another kernel: %v\n%s", inGuest, &out)
		}
		events := recorded()
		want(t, events, "the session's file", wrote("/of-exec"))
		want(t, events, "the denial", denied("getppid", "no-parent"))
		if last := stand.Last(events); last.Kind != "exit" || slices.ContainsFunc(events, func(e stand.Event) bool { return e.Kind == "loss" }) {
			t.Errorf("the last record is %s", last.Raw)
		}
	})
}
