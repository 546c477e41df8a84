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
