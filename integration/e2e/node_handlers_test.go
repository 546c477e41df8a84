// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
	"metsuke.dev/metsuke/node/doctor"
	"metsuke.dev/metsuke/node/install"
)

// secondShim is a second delegate: runc's shim under the name of Kata's, which says of itself what Kata's does. What is Kata's own about its
// pods needs Kata; this is about there being two.
const secondShim = "/usr/local/bin/containerd-shim-kata-v2"

// secondPlain is containerd's handler for it.
const secondPlain = `
[plugins.%q.containerd.runtimes.kata]
  runtime_type = "io.containerd.kata.v2"
`

// unheldFile has pods of one namespace, and the doctor's, pass: what limits a guest needs a guest.
const unheldFile = install.Etc + "/profiles.d/unheld.yaml"

const unheldBinding = `
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: unheld}
spec: {namespaces: [unheld, ` + doctor.CanaryNamespace + `], default: passthrough, allowed: [passthrough]}
`

// secondDelegate puts the second delegate onto the node, until the test ends.
func (h *harness) secondDelegate() {
	h.t.Helper()
	runc, err := stand.Tool(h.Version.Set(), "containerd-shim-runc-v2")
	h.must(err)
	program, err := os.ReadFile(runc)
	h.must(err)
	behind := filepath.Join(h.t.TempDir(), filepath.Base(secondShim))
	for file, content := range map[string]string{
		behind: string(program),
		secondShim: "#!/bin/sh\n[ \"$1\" != --version ] || exec echo 'Kata Containers containerd shim (Rust): played'\n" +
			"exec " + behind + " \"$@\"\n",
		"/etc/kata-containers/configuration.toml": "[hypervisor.remote]\n",
		unheldFile: unheldBinding,
	} {
		h.must(os.MkdirAll(filepath.Dir(file), 0o755))
		h.must(os.WriteFile(file, []byte(content), 0o755))
	}
	main := filepath.Join(h.Dir, "config.toml")
	was, err := os.ReadFile(main)
	h.must(err)
	plugin := "io.containerd.cri.v1.runtime"
	if h.Version == stand.V1 {
		plugin = "io.containerd.grpc.v1.cri"
	}
	h.must(os.WriteFile(main, append(slices.Clip(was), fmt.Sprintf(secondPlain, plugin)...), 0o644))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit) // the test's own has ended
		defer cancel()
		if err := errors.Join(os.WriteFile(main, was, 0o644), h.StopContainerd(unix.SIGTERM), h.StartContainerd(ctx)); err != nil {
			h.t.Error(err)
		}
	})
}

// ofOurs are the names of the installer's handlers: those in containerd's configuration, and those that it serves.
func (h *harness) ofOurs(node *install.Node) (written, served []string) {
	h.t.Helper()
	ours := func(path any) bool { return strings.HasPrefix(fmt.Sprint(path), install.Current) }
	dump, err := node.Containerd.Dump(h.ctx)
	h.must(err)
	tables, err := dump.Handlers()
	h.must(err)
	for name, table := range tables {
		if ours(table["runtime_path"]) {
			written = append(written, name)
		}
	}
	inForce, err := node.Service.Handlers(h.ctx)
	h.must(err)
	for name, handler := range inForce {
		if ours(handler.RuntimePath) {
			served = append(served, name)
		}
	}
	slices.Sort(written)
	slices.Sort(served)
	return written, served
}

// A node with two delegates has two handlers. When one delegate is gone, the doctor says so of its handler alone, and the installer, run again,
// takes that one away, but not from under its pods; the other one's pods do not notice.
func TestNodeHandlers(t *testing.T) {
	only(t, stand.Runc)
	eachVersion(t, func(t *testing.T, h *harness) {
		node, service := h.installed()
		h.secondDelegate()
		const first, second = "metsuke-runc", "metsuke-kata"
		has := func(want ...string) {
			t.Helper()
			if written, served := h.ofOurs(node); !slices.Equal(written, want) || !slices.Equal(served, want) {
				t.Errorf("in containerd's configuration are %q, it serves %q, want %q", written, served, want)
			}
		}
		ready := func(handler string, want bool) doctor.Report {
			t.Helper()
			code, r := h.doctor([]string{handler})
			if (code == 0) != want {
				t.Errorf("%s: exit code %d: %+v", handler, code, r.Findings)
			}
			return r
		}
		source := install.Source{Dir: filepath.Dir(stand.Metsuke("metsuke")), Version: "v1"}
		_, err := node.Install(h.ctx, source)
		h.must(err)
		has(second, first)
		ready(first, true)
		ready(second, true)
		held, unheld := h.pod(stand.PodConfig{Handler: first}), h.pod(stand.PodConfig{Handler: second, Namespace: "unheld"})
		stays, goes := held.idle(), unheld.idle()
		undisturbed := func(c *container, seccomp string) {
			t.Helper()
			if got := field(c.exec("cat", "/proc/self/status"), "Seccomp"); got != seccomp {
				t.Errorf("seccomp is %s, want %s", got, seccomp)
			}
		}
		undisturbed(stays, "2")
		undisturbed(goes, "0")
		if held.Shims("runc") == nil || held.Shims("kata") != nil || unheld.Shims("kata") == nil || unheld.Shims("runc") != nil {
			t.Errorf("delegates: %v %v, %v %v", held.Shims("runc"), held.Shims("kata"), unheld.Shims("runc"), unheld.Shims("kata"))
		}

		h.must(os.Rename(secondShim, secondShim+".away"))
		ready(first, true)
		if r := ready(second, false); !found(r, "delegate", doctor.Fail, secondShim) {
			t.Errorf("a delegate that is gone: %+v", r.Findings)
		}
		if _, err := node.Install(h.ctx, source); err == nil || !strings.Contains(err.Error(), "the delegates of "+second+" are gone") ||
			!strings.Contains(err.Error(), unheld.Config.GetMetadata().GetName()) {
			t.Fatalf("under pods: %v", err)
		}
		has(second, first)
		undisturbed(goes, "0")
		unheld.remove()

		restarts := service.restarts
		plan, err := node.Install(h.ctx, source)
		h.must(err)
		if service.restarts != restarts+1 || !slices.ContainsFunc(plan.Notes, func(note string) bool { return strings.Contains(note, "no handler for kata") }) {
			t.Errorf("%d restarts, notes %q", service.restarts-restarts, plan.Notes)
		}
		has(first)
		if _, err := os.Stat(install.Etc + "/" + second + ".toml"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its configuration is still there: %v", err)
		}
		undisturbed(stays, "2")
		ready(first, true)
		undisturbed(h.pod(stand.PodConfig{Handler: first}).idle(), "2")
		if _, err := h.RunPod(h.ctx, stand.PodConfig{Handler: second}); err == nil || !strings.Contains(err.Error(), second) {
			t.Errorf("a pod of the handler that is gone: %v", err)
		}

		// As a delegate that comes back.
		h.must(os.Rename(secondShim+".away", secondShim))
		_, err = node.Install(h.ctx, source)
		h.must(err)
		has(second, first)
		ready(second, true)
		undisturbed(stays, "2")

		h.must(h.RemoveAllPods(h.ctx))
		h.must(os.RemoveAll(filepath.Dir(unheldFile)))
		left, err := node.Uninstall(h.ctx, true)
		if err != nil || len(left) > 0 {
			t.Error(left, err)
		}
		has()
	})
}
