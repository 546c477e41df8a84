// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// TestMain: hundreds of small files are synced.
func TestMain(m *testing.M) {
	if unix.Access("/dev/shm", unix.W_OK) == nil {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// node is a directory of streams with the node's key.
type node struct {
	testing.TB
	root string
	key  *signature.Key
	keys signature.Ring
}

func newNode(t testing.TB) *node {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return &node{TB: t, root: t.TempDir(), key: key, keys: signature.Ring{key.Public}}
}

func identity(pod, container string) audit.Identity {
	return audit.Identity{Node: "n", Namespace: "a", Pod: pod, PodUID: "u", Container: container, ContainerID: "i"}
}

// segmentBytes is of some 30 records.
const segmentBytes = 16 << 10

func (n *node) open(id audit.Identity) *stream.Writer {
	n.Helper()
	w, err := stream.OpenWriter(stream.Dir(n.root, id), id, stream.Options{Key: n.key, SegmentBytes: segmentBytes})
	if err != nil {
		n.Fatal(err)
	}
	return w
}

func (n *node) records(w *stream.Writer, count int) {
	n.Helper()
	for i := range count {
		e := &audit.Event{Time: time.Now(), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
			PID: 41, TID: 41, Comm: "python3", Exe: "/usr/bin/python3.13", Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64",
			Args:  []audit.Arg{{Name: "pathname", Value: strings.Repeat("/tmp", i%50), Evidence: audit.EvidencePeeked}},
			Class: "file-write", Verdict: audit.VerdictAllowed,
		}}
		if err := w.Append(e); err != nil {
			n.Fatal(err)
		}
	}
	if err := w.Sync(); err != nil {
		n.Fatal(err)
	}
}

func (n *node) end(w *stream.Writer) {
	n.Helper()
	if err := w.Append(&audit.Event{Time: time.Now(), Kind: audit.KindEnd, End: &audit.End{}}); err != nil {
		n.Fatal(err)
	}
	if err := w.Close(); err != nil {
		n.Fatal(err)
	}
}

// ended writes a stream of so many records that is closed.
func (n *node) ended(pod, container string, count int) string {
	n.Helper()
	id := identity(pod, container)
	w := n.open(id)
	n.records(w, count)
	n.end(w)
	return stream.Dir(n.root, id)
}

// round does one, so long after now, and fails if there is a problem. It returns what was done.
func (n *node) round(p Policy, later time.Duration, change ...func(*Round)) (Report, []Action) {
	n.Helper()
	var did []Action
	r := &Round{
		Root: n.root, Policy: p, Key: n.key, Keys: n.keys, Did: func(a Action) { did = append(did, a) },
		Problem: func(err error) { n.Error(err) }, now: func() time.Time { return time.Now().Add(later) },
	}
	for _, c := range change {
		c(r)
	}
	report, err := r.Run(n.Context())
	if err != nil {
		n.Fatal(err)
	}
	return report, did
}

// faults verifies everything.
func (n *node) faults() (codes []verify.Code) {
	n.Helper()
	collect := func(list []verify.Finding) {
		for _, x := range list {
			if x.Severity != verify.Note {
				codes = append(codes, x.Code)
			}
		}
	}
	l, err := verify.Node(n.root, n.keys, func(stream.Stream) bool { return true }, func(s *verify.Stream) error {
		collect(s.Findings)
		return nil
	})
	if err != nil {
		n.Fatal(err)
	}
	collect(l.Findings)
	return codes
}

func (n *node) proven(what string) {
	n.Helper()
	if codes := n.faults(); codes != nil {
		n.Errorf("%s: %v", what, codes)
	}
}

// clone is the node with a copy of its streams.
func (n *node) clone() *node {
	n.Helper()
	c := *n
	c.root = filepath.Join(n.TempDir(), "copy")
	if err := os.CopyFS(c.root, os.DirFS(n.root)); err != nil {
		n.Fatal(err)
	}
	return &c
}

// names are those of a stream's segments.
func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	segments, err := stream.Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		list = append(list, strings.TrimLeft(filepath.Base(s.Path), "0"))
	}
	return list
}

func same(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// count reads a stream, and returns how many records it has.
func count(t testing.TB, dir string) (n int) {
	t.Helper()
	r, err := segment.OpenReader(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		if _, err := r.Next(); err != nil {
			return n
		}
		n++
	}
}
