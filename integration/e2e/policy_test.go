// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

const (
	permissive = "metsuke-permissive" // lets pods set guestPolicy

	// guestPolicy is, on the stand, what the guest's agent refuses (integration/kata/agent/rpc.Policy). It is an annotation that
	// Kata's configuration there allows, and Metsuke's does not.
	guestPolicy = "io.katacontainers.config.hypervisor.machine_type"
)

// Where a guest's policy does not let the container be supervised, it never runs, and the error says why and what to do. The pod's
// other containers, and its end, are as ever. What has run left a file, which the node sees whatever the guest's agent says.
func TestGuestRefusesSupervision(t *testing.T) {
	onTheStand(t)
	const allow, alone = "allow ExecProcess", "under a handler of Kata's own"
	eachVersion(t, func(t *testing.T, h *harness) {
		for policy, words := range map[string][]string{
			"":             nil,
			"deny-create":  {"CreateContainerRequest is blocked by policy", alone},
			"deny-exec":    {"ExecProcessRequest is blocked by policy", allow},
			"blank-output": {"policy denies its input or output", allow},
		} {
			p := h.pod(stand.PodConfig{Handler: permissive, Annotations: map[string]string{guestPolicy: policy}})
			c := p.create(stand.ContainerConfig{Command: []string{"sh", "-c", "touch /ran; echo ran; sleep 1"}})
			if err := c.Start(h.ctx); words == nil {
				if err != nil || c.output() != "ran\n" || !c.hasMade("ran") {
					t.Errorf("without a policy: %v: the test proves nothing", err)
				}
				p.remove()
				continue
			} else if err == nil || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) }) {
				t.Errorf("%s: %v, want an error with %q", policy, err, words)
			}
			c.exited()
			if out := c.written(); out != "" || c.hasMade("ran") {
				t.Errorf("%s: the workload ran, and wrote %q", policy, out)
			}
			if slices.ContainsFunc(p.events("main"), func(e stand.Event) bool { return e.Kind == "start" || e.Kind == "syscall" }) {
				t.Errorf("%s: something ran: %v", policy, p.events("main"))
			}
			p.remove()
		}
	})
}

// hasMade says whether the container has made a file in its root file system, by what the node has of that.
func (c *container) hasMade(name string) bool {
	t, ctx := c.p.h.t, c.p.h.ctx
	t.Helper()
	client, err := c.p.h.Containerd()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	mounts, err := client.SnapshotService("overlayfs").Mounts(ctx, c.ID)
	if err != nil || len(mounts) != 1 {
		t.Fatalf("the container's file system is %v, %v", mounts, err)
	}
	for _, option := range mounts[0].Options {
		if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
			_, err := os.Stat(filepath.Join(upper, name))
			return err == nil
		}
	}
	t.Fatalf("the container's file system has no layer of its own: %v", mounts[0])
	return false
}

// An annotation that could weaken the guest is refused, though Kata allows it, before there is a guest.
func TestGuestIsNotWeakened(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		machines := len(stand.Processes("qemu-system"))
		for _, key := range []string{guestPolicy, "io.katacontainers.config.hypervisor.cc_init_data"} {
			_, err := h.RunPod(h.ctx, stand.PodConfig{Handler: baseline, Annotations: map[string]string{key: "deny-exec"}})
			if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "delegate.allowed_annotations") {
				t.Errorf("%s: %v, want a refusal that says what to do", key, err)
			}
		}
		if n := len(stand.Processes("qemu-system")); n > machines {
			t.Errorf("%d machines were made", n-machines)
		}
	})
}
