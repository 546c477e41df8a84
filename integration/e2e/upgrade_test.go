// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

// An upgrade puts another helper in the place of the one that a pod's containers run. The pod goes on: exec sessions begin, and
// so do further containers of it.
func TestHelperReplaced(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		config := h.ConfigPath(attacked)
		before, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		helper := filepath.Join(h.Dir, "helper")
		install := func() {
			content, err := os.ReadFile(stand.Metsuke("metsuke-guest"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(helper+".new", content, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(helper+".new", helper); err != nil {
				t.Fatal(err)
			}
		}
		install()
		defer func() { _ = os.Remove(helper) }()
		own := bytes.Replace(before, []byte(stand.Metsuke("metsuke-guest")), []byte(helper), 1)
		if bytes.Equal(own, before) {
			t.Fatal("the configuration does not name the helper")
		}
		if err := os.WriteFile(config, own, 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(config, before, 0o644); err != nil {
				t.Error(err)
			}
		}()
		p := h.pod(stand.PodConfig{Handler: attacked})
		c := p.idle()
		install()
		for name, c := range map[string]*container{"main": c, "next": p.run(stand.ContainerConfig{Name: "next", Command: []string{"workload", "pause"}})} {
			if out := c.exec("sh", "-c", "echo x > /f; grep Seccomp: /proc/self/status"); field(out, "Seccomp") != "2" {
				t.Errorf("%s: %s", name, out)
			}
			want(t, p.events(name), "the file", wrote("/f"))
		}
	})
}
