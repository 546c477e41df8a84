// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, tt := range []struct{ name, container, want string }{
		{"plain", "agent-1.x", "agent-1.x"},
		{"underscore", "my_agent", "my_agent"},
		{"empty", "", "%-"},
		{"dot", ".", "%2E"},
		{"dots", "..", "%2E."},
		{"hidden", ".ssh", "%2Essh"},
		{"separator", "../../etc", "%2E.%2F..%2Fetc"},
		{"percent", "%2E", "%252E"},
		{"control", "a\n\x00", "a%0A%00"},
		{"not ASCII", "ü", "%C3%BC"},
		{"long", long, strings.Repeat("a", 182) + "%-9835fa6bf4e20a9b"},
		{"long, encoded", strings.Repeat("ü", 100), strings.Repeat("%C3%BC", 30) + "%-"},
	} {
		got := ContainerName(tt.container)
		if tt.name == "long, encoded" {
			got = got[:len(tt.want)]
		}
		if got != tt.want {
			t.Errorf("%s: %q becomes %q, want %q", tt.name, tt.container, got, tt.want)
		}
	}
	if got := PodName("a_b", "", "c"); got != "a%5Fb_%-_c" {
		t.Errorf("pod's name is %q", got)
	}
	if n := len(PodName(long, long, long)); n > 255 {
		t.Errorf("a pod's name can have %d bytes", n)
	}
}

func TestStreamNames(t *testing.T) {
	s := Stream{Pod: PodName("team_a", "coder", "u"), Container: ContainerName("agent")}
	for _, tt := range []struct {
		namespace, pod, container string
		want                      bool
	}{
		{"", "", "", true},
		{"team_a", "coder", "agent", true},
		{"team", "", "", false},
		{"", "code", "", false},
		{"", "", "agen", false},
		{"", "a_coder", "", false},
	} {
		if got := s.Names(tt.namespace, tt.pod, tt.container); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// FuzzDir: names never leave the root, never share a directory, and always fit a file system.
func FuzzDir(f *testing.F) {
	f.Add("a", "b", "a_b", "")
	f.Add("..", "/", strings.Repeat("x", 64), strings.Repeat("x", 65))
	f.Add("%-", "", "%2F", "/")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for _, x := range []string{a, b, c, d} {
			for _, y := range []string{a, b, c, d} {
				p := Dir("/r", audit.Identity{Namespace: x, Pod: y, PodUID: x, Container: y})
				q := Dir("/r", audit.Identity{Namespace: y, Pod: x, PodUID: x, Container: y})
				if (p == q) != (x == y) {
					t.Fatalf("%q and %q: %q, %q", x, y, p, q)
				}
				parts := strings.Split(p, "/")
				if len(parts) != 4 || filepath.Clean(p) != p || parts[1] != "r" {
					t.Fatalf("%q, %q: %q leaves the root", x, y, p)
				}
				for _, part := range parts[2:] {
					if part == "" || part[0] == '.' || len(part) > 255 {
						t.Fatalf("%q, %q: part %q", x, y, part)
					}
				}
			}
		}
	})
}
