// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An upgrade changes a link: containerd is not restarted, and what was changed is what people can go back to.
func TestUpgrade(t *testing.T) {
	l := newLab(t, layouts["2-version-2"])
	was := l.snapshot()
	for _, version := range []string{"v1", "v2", "v3", "v4"} {
		l.build(version)
		l.mustInstall(version)
		if version == "v2" { // a pod of v2 lives on
			l.mkdir("/proc/22")
			l.link(l.dir+Home+"/v2/"+shim, "/proc/22/exe")
		}
	}
	if l.service.restarts != 1 {
		t.Errorf("%d restarts", l.service.restarts)
	}
	s, err := l.at(nil).Status(t.Context(), Source{l.source, "v4"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Version{
		{Name: "v2", Ours: true, Processes: []int{22}},
		{Name: "v3", Ours: true, Processes: []int{}},
		{Name: "v4", Ours: true, Linked: true, Processes: []int{}},
	}
	if diff := cmp.Diff(want, s.Versions); diff != "" || s.Previous != "v3" {
		t.Errorf("previous %s\n%s", s.Previous, diff)
	}
	// The way back is the same command with the old binaries.
	l.build("v3")
	l.mustInstall("v3")
	if _, err := l.at(nil).Uninstall(t.Context(), false); err == nil || !strings.Contains(err.Error(), "22 (v2)") {
		t.Errorf("while a shim lives: %v", err)
	}
	if err := os.RemoveAll(l.dir + "/proc/22"); err != nil {
		t.Fatal(err)
	}
	l.mustUninstall()
	l.same(was)
}

// The metsuke that takes itself away is no reason for its version to stay.
func TestUninstallByTheInstalled(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	was := l.snapshot()
	l.build("v1")
	l.mustInstall("v1")
	l.mkdir("/proc/23")
	l.link(l.dir+Home+"/v1/metsuke", "/proc/23/exe")
	l.link("23", "/proc/self")
	l.mustUninstall()
	for _, name := range []string{"/proc/self", "/proc/23"} {
		if err := os.RemoveAll(l.dir + name); err != nil {
			t.Fatal(err)
		}
	}
	l.same(was)
}

// A version that cannot be judged stays.
func TestVersionsThatCannotBeJudged(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	for _, version := range []string{"v1", "v2", "v3"} {
		if version == "v3" {
			if err := os.RemoveAll(l.dir + "/proc"); err != nil {
				t.Fatal(err)
			}
		}
		l.build(version)
		if _, err := l.install(version); err != nil {
			t.Fatal(err)
		}
	}
	if l.read(Home+"/v1/metsuke") != "metsuke v1" {
		t.Error("v1 is changed")
	}
	if _, err := l.at(nil).Uninstall(t.Context(), false); err == nil || !strings.Contains(err.Error(), "processes cannot all be seen") {
		t.Errorf("uninstall: %v", err)
	}
}

// Another build of an installed version is refused: it would change what runs in living pods.
func TestSameVersionOtherBuild(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	l.mustInstall("devel")
	was := l.snapshot()
	l.build("another")
	if _, err := l.install("devel"); err == nil || !strings.Contains(err.Error(), "make build VERSION=") {
		t.Errorf("%v", err)
	}
	l.same(was)
	for _, version := range []string{"", "current", "../v1", ".installer", "a/b"} {
		if _, err := l.install(version); err == nil || !strings.Contains(err.Error(), "cannot be the name") {
			t.Errorf("version %q: %v", version, err)
		}
	}
}
