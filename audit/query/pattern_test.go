// SPDX-License-Identifier: Apache-2.0

package query

import (
	"strings"
	"testing"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/record"
)

func TestPath(t *testing.T) {
	for _, tt := range []struct{ pattern, fits, not string }{ // blanks between paths
		{"/etc/shadow", "/etc/shadow /etc/./shadow //etc/shadow /tmp/../etc/shadow", "/etc/shadow2 /x/etc/shadow etc/shadow"},
		{"/etc/*", "/etc/passwd /etc/x /etc//y", "/etc/ssh/x /etc /etcetera"},
		{"/etc/**", "/etc/passwd /etc/ssh/x /var/../etc/x", "/etc /etcetera /var/etc/x"},
		{"**/.ssh/*", "/root/.ssh/id a/.ssh/../.ssh/x/../y a/.ssh/id", "/root/.sshd/id /root/.ssh/a/b"},
		{"*.so", "libc.so x.so", "/lib/libc.so libc.so.6"},
		{"**.so", "libc.so /lib/libc.so", "libc.so.6"},
		{"/tmp/?.txt", "/tmp/a.txt /tmp/ü.txt", "/tmp/ab.txt /tmp//.txt"},
		{`/a\*b`, "/a*b", "/axb"},
		{`/a[b]{1}+$`, "/a[b]{1}+$", "/ab"},
		{"**", "/x y/z", ""},
	} {
		p, err := ParsePath(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		fits(t, tt.pattern, p.Match, tt.fits, tt.not)
	}
	for _, bad := range []string{"", `/x\`, "/\xff", strings.Repeat("x", maxPattern+1)} {
		if _, err := ParsePath(bad); err == nil {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
}

// fits checks which words a pattern matches.
func fits(t *testing.T, pattern string, match func(string) bool, those, not string) {
	t.Helper()
	for _, s := range strings.Fields(those) {
		if !match(s) {
			t.Errorf("%s does not fit %s", pattern, s)
		}
	}
	for _, s := range strings.Fields(not) {
		if match(s) {
			t.Errorf("%s fits %s", pattern, s)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct{ pattern, fits, not string }{
		{"10.0.0.0/8", "10.1.2.3:80 [::ffff:10.1.2.3]:443", "11.0.0.1:80 [fd00::a]:80 unix:/10.0.0.1 10.0.0.1"},
		{"10.1.2.3", "10.1.2.3:80 10.1.2.3:0", "10.1.2.4:80"},
		{"10.1.2.3:80", "10.1.2.3:80", "10.1.2.3:81"},
		{"10.9.0.0/16:443", "10.9.8.7:443", "10.9.8.7:80 10.8.8.7:443"},
		{":443", "10.1.2.3:443 [::1]:443", "10.1.2.3:80 vsock:2:443"},
		{"fd00::/8", "[fd00:1::2]:443 [fd12::%3]:1", "[fe80::1]:443 10.0.0.1:80"},
		{"[fd00::/8]:443", "[fd00:1::2]:443", "[fd00:1::2]:80"},
		{"::1", "[::1]:80", "127.0.0.1:80"},
		{"[::1]:80", "[::1]:80", "[::1]:81"},
		{"unix:/run/**", "unix:/run/docker.sock unix:/run/a/b", "unix:/tmp/x unix-abstract:/run/x"},
		{"unix-abstract:*", "unix-abstract:x", "unix:x"},
		{"vsock:2:*", "vsock:2:1024", "vsock:3:1024"},
	} {
		a, err := ParseAddress(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		fits(t, tt.pattern, a.Match, tt.fits, tt.not)
	}
	for _, bad := range []string{"", "host", "example.org:443", "10.0.0.0/33", "10.0.0.1:http", ":70000", ":", "[::1", "[::1]80", "::1%eth0", "localhost:80", "unix:\\"} {
		if _, err := ParseAddress(bad); err == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
}

// FuzzPatterns: no pattern upsets the matcher; and what fits a pattern is in the index of its segment.
func FuzzPatterns(f *testing.F) {
	for _, seed := range [][2]string{
		{"/etc/**", "/etc/../etc/x"}, {"**/.ssh/*", "/root/.ssh/id"}, {"a/b/c/d/*", "a/b/c/d/e"}, {"10.0.0.0/8:443", "10.1.2.3:443"},
		{"fd00::/33", "[fd00::1%2]:80"}, {"unix:/run/**", "unix:/run/x"}, {"/a/b", "/a//b"}, {"::ffff:1.2.3.4", "[::ffff:1.2.3.4]:1"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		s := new(index.Summary)
		s.Add(&record.Record{Event: audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Args: []audit.Arg{
			{Name: "path", Value: value, Evidence: audit.EvidencePeeked}, {Name: "addr", Value: value, Evidence: audit.EvidencePeeked},
		}}}})
		p, err := ParsePath(pattern)
		if err != nil && utf8.ValidString(pattern) && pattern != "" && len(pattern) <= maxPattern && !strings.HasSuffix(pattern, `\`) {
			t.Fatalf("%q: %v", pattern, err)
		}
		if err == nil && p.Match(value) && !p.mayBeIn(s) {
			t.Errorf("%q fits %q, and the index excludes it", pattern, value)
		}
		a, err := ParseAddress(pattern)
		if err == nil && a.Match(value) && !a.mayBeIn(s) {
			t.Errorf("address %q fits %q, and the index excludes it", pattern, value)
		}
	})
}
