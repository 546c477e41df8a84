// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/stream"
)

var megabytes = flag.Int("megabytes", 128, "size of the stream that is read in constant memory")

const largeSegment = 4 << 20

// large makes a stream of so many segments, which are all the same file, of usual records. Each segment has one denial.
func large(t testing.TB, segments int) (root string, bytes int64) {
	t.Helper()
	root = t.TempDir()
	who := audit.Identity{
		Node: "worker-1", Namespace: "team-a", Pod: "coder-7d4b9c6f5-x2x9k", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d",
		Container: "agent", ContainerID: strings.Repeat("9f3c0c1e", 8), Profile: "coder", ProfileDigest: strings.Repeat("77aa", 16),
	}
	w, err := stream.OpenWriter(stream.Dir(root, who), who, stream.Options{SegmentBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	dir := stream.Dir(root, who)
	for i := 0; bytes < largeSegment; i++ {
		e := audit.Event{Time: epoch.Add(time.Duration(i) * time.Millisecond), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
			PID: 41, TID: 41, PPID: 1, UID: 1000, GID: 1000, Comm: "python3", Exe: "/usr/bin/python3.13",
			Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Args: []audit.Arg{
				{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
				{Name: "path", Value: fmt.Sprintf("/work/repository/build/objects/%d.o", i), Evidence: audit.EvidencePeeked},
				{Name: "flags", Value: "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", Evidence: audit.EvidenceRegister},
				{Name: "mode", Value: "0666", Evidence: audit.EvidenceRegister},
			}, Class: "file-write", Verdict: audit.VerdictAllowed,
		}}
		if i == 1000 {
			e.Syscall.Verdict, e.Syscall.Errno = audit.VerdictDenied, "EPERM"
		}
		add(t, w, e)
		if i%100 == 0 {
			if _, bytes, err = stream.Size(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, bytes, err = stream.Size(dir)
	if err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, "00000001.ndjson")
	for n := 2; n <= segments; n++ {
		if err := os.Link(first, filepath.Join(dir, fmt.Sprintf("%08d.ndjson", n))); err != nil {
			t.Fatal(err)
		}
	}
	return root, bytes * int64(segments)
}

func count(t testing.TB, root string, f *Filter, o Options) (n int) {
	t.Helper()
	o.Last, o.Problem = All, func(err error) { t.Error(err) }
	if err := Read(context.Background(), root, f, o, func(Entry) error {
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

var denied = Filter{Verdicts: []audit.Verdict{audit.VerdictDenied}}

// TestConstantMemory: what is allocated does not grow with the stream, whether little of it is chosen or all.
func TestConstantMemory(t *testing.T) {
	segments := *megabytes << 20 / largeSegment
	root, bytes := large(t, segments)
	for what, f := range map[string]*Filter{"few": &denied, "all": {}, "paths": {Paths: []Path{mustPath(t, "/etc/**")}}, "process": {Process: Process{PID: 2}}} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := count(t, root, f, Options{Borrow: true})
		runtime.ReadMemStats(&after)
		if what == "few" && n != segments {
			t.Errorf("%d records are found in %d segments", n, segments)
		}
		const listed = 600 // bytes that a segment costs each time that the directory is listed: once a segment
		if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20+uint64(segments*segments)*listed {
			t.Errorf("%s: %d bytes are allocated to read %d", what, got, bytes)
		}
	}
}

// TestIndexSaves: with an index hardly anything is read of a stream that has nothing of what is looked for.
func TestIndexSaves(t *testing.T) {
	root, _ := large(t, 6) // one file with six names, so one index
	cache, err := index.Open(filepath.Join(t.TempDir(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(f Filter) uint64 {
		t.Helper()
		before := bytesRead(t)
		if n := count(t, root, &f, Options{Index: cache}); n != 0 {
			t.Errorf("%d records are found", n)
		}
		return bytesRead(t) - before
	}
	if n := read(Filter{Classes: []string{"net"}}); n < 2*largeSegment {
		t.Errorf("%d bytes are read the first time: the first segment has no index then, and the last one never has", n)
	}
	for what, f := range map[string]Filter{"class": {Classes: []string{"exec"}}, "path": {Paths: []Path{mustPath(t, "/etc/**")}}, "time": {Since: time.Now()}} {
		if n := read(f); n > largeSegment+largeSegment/4 {
			t.Errorf("%s: %d bytes are read in spite of an index", what, n)
		}
	}
}

// bytesRead is how much this process has read, of files and others, so far (proc(5)).
func bytesRead(t *testing.T) (n uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err == nil {
		_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustPath(t testing.TB, text string) Path {
	t.Helper()
	p, err := ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// processorTime is what this process took of the processors' time.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkRead(b *testing.B) {
	root, bytes := large(b, 16)
	cache, err := index.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name    string
		filter  Filter
		options Options
	}{
		{"verdict", denied, Options{}},
		{"path", Filter{Paths: []Path{mustPath(b, "/etc/**")}}, Options{}},
		{"inner", Filter{Paths: []Path{mustPath(b, "**/.ssh/*")}}, Options{}},
		{"process", Filter{Process: Process{PID: 2}}, Options{}},
		{"all", Filter{}, Options{}},
		{"all-borrowed", Filter{}, Options{Borrow: true}},
		{"none-indexed", Filter{Classes: []string{"net"}}, Options{Index: cache}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(bytes)
			before := processorTime(b)
			for b.Loop() {
				count(b, root, &bench.filter, bench.options)
			}
			b.ReportMetric(float64(bytes)*float64(b.N)/1e6/(processorTime(b)-before).Seconds(), "MB/cpu-s") // also on a machine that is busy
		})
	}
}
