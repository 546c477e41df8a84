// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

// The node sees nothing of what a workload does in its guest: a sensor on the virtual machine's process counts none of the
// calls that are in the stream.
func TestKataHostIsBlind(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		machines := p.Machines()
		if len(machines) != 1 {
			t.Fatalf("machines of the pod: %v", machines)
		}
		sensor, err := stand.Watch(machines[0])
		if err != nil {
			t.Fatal(err)
		}
		defer sensor.Close()
		p.shell("workload syscall unshare 0x10000000; workload syscall ptrace; true").output()
		seen, err := sensor.Counts()
		if err != nil {
			t.Fatal(err)
		}
		recorded := map[string]int{}
		for _, e := range p.events("main") {
			if e.Kind == "syscall" {
				recorded[e.Syscall]++
			}
		}
		for _, call := range []string{"execve", "unshare", "ptrace"} {
			if recorded[call] == 0 || seen[call] != 0 {
				t.Errorf("%s: %d in the stream, %d seen by the host, among %v", call, recorded[call], seen[call], seen)
			}
		}
	})
}
