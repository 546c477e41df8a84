// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/tree"
)

// On each kind of node an installation brings what the golden file says, a second one does nothing, and an uninstallation leaves each byte
// as it was.
func TestInstallAndUninstall(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, layout)
			was := l.snapshot()
			p := l.mustInstall("v1")
			var b strings.Builder
			fmt.Fprintf(&b, "notes:\n  %s\nsteps:\n  %s\n", strings.Join(p.Notes, "\n  "), strings.Join(p.Steps(), "\n  "))
			is := l.snapshot()
			for _, file := range names(is) {
				if is[file] != was[file] {
					fmt.Fprintf(&b, "==> %s\n%s\n", file, is[file])
				}
			}
			golden(t, name, b.String())
			if l.service.restarts != 1 {
				t.Errorf("%d restarts", l.service.restarts)
			}
			l.said = nil
			if p := l.mustInstall("v1"); len(p.Steps()) > 0 || len(l.said) > 0 || l.service.restarts != 1 {
				t.Errorf("the second time: %q, said %q, %d restarts", p.Steps(), l.said, l.service.restarts)
			}
			if diff := cmp.Diff(is, l.snapshot()); diff != "" {
				t.Errorf("the second time changes:\n%s", diff)
			}
			l.mustUninstall()
			l.same(was)
			if len(l.service.inForce) != len(filed(l)) {
				t.Errorf("in force: %v", names(l.service.inForce))
			}
			l.mustUninstall() // there is nothing to do
			l.same(was)
		})
	}
}

// filed are the handlers that containerd's files have.
func filed(l *lab) map[string]containerd.Table {
	l.t.Helper()
	d, err := l.at(nil).Containerd.Dump(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	h, err := d.Handlers()
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// Killed before any step and run again, an installation and an uninstallation end right.
func TestKilledAtEachStep(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			for _, from := range []string{"", "v0"} { // the version that was there
				for n, dead := 0, true; dead; n++ {
					if n > 40 {
						t.Fatal("an installation without end")
					}
					l := newLab(t, layout)
					was := l.snapshot()
					if from != "" {
						l.build(from)
						l.mustInstall(from)
						l.build("v1")
					}
					dead = l.killed(n, func(node *Node) error {
						_, err := node.Install(t.Context(), Source{l.source, "v1"})
						return err
					})
					l.mustInstall("v1")
					if want := "metsuke v1"; l.read(Current+"/metsuke") != want {
						t.Errorf("killed before step %d: %s", n, l.read(Current+"/metsuke"))
					}
					if _, ok := l.service.inForce["metsuke-runc"]; !ok {
						t.Errorf("killed before step %d: in force: %v", n, names(l.service.inForce))
					}
					l.mustUninstall()
					l.same(was)
				}
			}
			for n, dead := 0, true; dead; n++ {
				if n > 40 {
					t.Fatal("an uninstallation without end")
				}
				l := newLab(t, layout)
				was := l.snapshot()
				l.mustInstall("v1")
				dead = l.killed(n, func(node *Node) error {
					_, err := node.Uninstall(t.Context(), false)
					return err
				})
				l.mustUninstall()
				l.same(was)
			}
		})
	}
}

// Killed in the middle of an uninstallation, an installation brings everything back.
func TestInstalledAgain(t *testing.T) {
	for n, dead := 0, true; dead; n++ {
		l := newLab(t, layouts["2-version-2"])
		was := l.snapshot()
		l.mustInstall("v1")
		dead = l.killed(n, func(node *Node) error {
			_, err := node.Uninstall(t.Context(), false)
			return err
		})
		l.mustInstall("v1")
		l.mustUninstall()
		l.same(was)
	}
}

// Of two installers at once one is told so.
func TestOneAtATime(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	other, err := tree.Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	unlock, err := other.Lock(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unlock() }()
	if _, err := l.install("v1"); !errors.Is(err, tree.ErrLocked) {
		t.Errorf("install: %v", err)
	}
	if _, err := l.at(nil).Uninstall(t.Context(), false); !errors.Is(err, tree.ErrLocked) {
		t.Errorf("uninstall: %v", err)
	}
	if _, err := l.at(nil).Status(t.Context(), Source{l.source, "v1"}); err != nil {
		t.Errorf("status beside an installer: %v", err)
	}
}

func TestStatus(t *testing.T) {
	l := newLab(t, layouts["2-kata"])
	s, err := l.at(nil).Status(t.Context(), Source{l.source, "v1"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status-before", asJSON(t, s))
	was := l.snapshot()
	l.same(was) // it has changed nothing
	l.mustInstall("v1")
	l.service.pods = []cri.Pod{{Name: "p", Handler: "metsuke-kata-qemu", Ready: true}}
	if s, err = l.at(nil).Status(t.Context(), Source{l.source, "v1"}); err != nil {
		t.Fatal(err)
	}
	golden(t, "status-after", asJSON(t, s))
}
