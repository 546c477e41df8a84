// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

// verify runs metsuke audit verify on the pod's streams, and fails unless what it says holds all of the words.
func (p *pod) verify(words ...string) {
	p.h.t.Helper()
	dirs, err := p.StreamDirs(p.handler)
	p.h.must(err)
	p.h.eventually("verified", func() error {
		for _, dir := range dirs {
			out, err := exec.CommandContext(p.h.ctx, stand.Metsuke("metsuke"), "audit", "verify", "--key", p.h.KeyPath(), dir).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", filepath.Base(dir), err, out)
			}
			for _, word := range words {
				if !strings.Contains(string(out), word) {
					return fmt.Errorf("%q is not in: %s", word, out)
				}
			}
		}
		return nil
	})
}

// What a pod leaves is proven by its node's key: while it runs, when it has ended, and when its shim was killed.
func TestStreamsAreProven(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		h.grantLeaksOf(killDelegate)
		p := h.pod(stand.PodConfig{Handler: baseline})
		c := p.idle()
		c.exec("sh", "-c", "unshare -m true 2>/dev/null; true")
		p.verify("proven", "open")
		if err := c.Stop(h.ctx, 0); err != nil {
			t.Fatal(err)
		}
		p.verify("proven", "ended")
		last := p.events("main")
		if end := last[len(last)-1]; end.Kind != "end" || end.Fields["records"] != float64(len(last)-1) {
			t.Errorf("the last record of %d: %s", len(last), end.Raw)
		}
		killed := h.pod(stand.PodConfig{Handler: baseline})
		killed.killShim(ourShim)
		killed.verify("proven", "closed")
		killed.remove()
	})
}

// Under durability: synced, which the receipts tell, processes that write at the same time wait for the disk together: each goes on, and each of
// their records is there, in a stream that is proven to its end.
func TestSyncedTogether(t *testing.T) {
	const writers, files = 8, 25
	together := fmt.Sprintf(`for w in $(seq %d); do (for i in $(seq %d); do echo x > /tmp/$w-$i || exit 1; done) & done; wait; ls /tmp | wc -l`, writers, files)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked, Annotations: map[string]string{"metsuke.dev/profile": "synced"}})
		out := p.run(stand.ContainerConfig{Command: []string{"sh", "-c", together}}).output()
		if strings.TrimSpace(out) != fmt.Sprint(writers*files) {
			t.Errorf("the writers made %q files, want %d", out, writers*files)
		}
		p.verify("proven")
		events := p.events("main")
		if got := events[0].Fields["durability"]; events[0].Kind != "start" || got != "synced" {
			t.Errorf("the receipt says durability %v: %s", got, events[0].Raw)
		}
		for w := range writers {
			for i := range files {
				if path := fmt.Sprintf("/tmp/%d-%d", w+1, i+1); len(find(events, wrote(path))) != 1 {
					t.Errorf("%d records of the write to %s", len(find(events, wrote(path))), path)
				}
			}
		}
	})
}
