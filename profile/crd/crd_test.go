// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/seccomp"
)

const files = "../../deploy/helm/metsuke/files"

// The files that are shipped are what the package makes.
func TestDefinitionsAreShipped(t *testing.T) {
	definitions, err := Definitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		data, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		goldentest.Equal(t, filepath.Join(files, "crds", d.Spec.Names.Plural+".yaml"), data)
		// kubectl apply keeps a copy in an annotation, and annotations end at 256 KiB.
		if len(data) > 200<<10 {
			t.Errorf("%s has %d bytes", d.Metadata.Name, len(data))
		}
	}
}

// Every call that a rule may name is in the schema, and nothing else.
func TestSyscalls(t *testing.T) {
	for _, name := range syscalls() {
		if !seccomp.KnownSyscall(name) {
			t.Errorf("%s is not known", name)
		}
	}
	seen := map[string]bool{}
	for _, name := range syscalls() {
		seen[name] = true
	}
	for _, c := range seccomp.Classes() {
		for _, rule := range c.Rules {
			for _, name := range rule.Syscalls {
				if !seen[name] {
					t.Errorf("%s of class %s is missing", name, c.Name)
				}
			}
		}
	}
}

func TestQuantityPattern(t *testing.T) {
	for _, c := range []struct {
		digits int
		parse  func(string) (int64, error)
	}{{0, cgroups.ParseBytes}, {3, cgroups.ParseCPU}} {
		pattern := regexp.MustCompile(quantityPattern(c.digits))
		for _, s := range []string{
			"0", "1", "10", "007", "1.0", "1.5", "0.5", "1.", ".5", "", "-1", "+1", "1e3", "1E", "1E3", "1Ei", "1KB", "1K", "1Ki", "1ki", "1 Gi",
			"500m", "1000m", "1500m", "1000.0m", "1500.5m", "0m", "0.0m", "1000000u", "1000u", "1u", "1000000000n", "1000000n", "1n", "00n",
			"1.5k", "1.0005k", "1.0000k", "1.1234567M", "1.123456M", "1.5Gi", "1.25Gi", "1.125Ki", "1.3Gi", "1.50Gi", "0.1Ki", "1.0Gi", "0x10", "1.2.3",
			"0.001", "0.0001", "1.250", "0.0010", "1.5m", "0.5u",
		} {
			_, err := c.parse(s)
			if err != nil && strings.Contains(err.Error(), "too large") {
				continue // for the rules of CEL
			}
			if got := pattern.MatchString(s); got != (err == nil) {
				t.Errorf("%d digits, %q: pattern %v, package cgroups %v", c.digits, s, got, err)
			}
		}
	}
}

func TestAtMost(t *testing.T) {
	for most, cases := range map[string]map[string]bool{
		"133":                  {"1": true, "9": true, "10": true, "99": true, "100": true, "129": true, "130": true, "133": true, "134": false, "200": false, "0": false, "01": false, "1000": false},
		"18446744073709551615": {"18446744073709551615": true, "18446744073709551616": false, "9999999999999999999": true, "18446744073709551609": true, "20000000000000000000": false},
	} {
		pattern := regexp.MustCompile("^(" + atMost(most) + ")$")
		for s, want := range cases {
			if got := pattern.MatchString(s); got != want {
				t.Errorf("at most %s, %s: %v", most, s, got)
			}
		}
	}
}
