// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/signature"
)

var testID = audit.Identity{
	Node: "node-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d",
	Container: "agent", ContainerID: strings.Repeat("9f3c0c1e", 8), Profile: "coder", ProfileDigest: strings.Repeat("77aa", 16),
}

func call(i int) *audit.Event {
	return &audit.Event{Time: time.Unix(1_800_000_000, int64(i)), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 41, TID: 41, PPID: 1, UID: 1000, GID: 1000, Comm: "python3", Exe: "/usr/bin/python3.13",
		Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Args: []audit.Arg{
			{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
			{Name: "pathname", Value: "/tmp/out.txt", Evidence: audit.EvidencePeeked},
			{Name: "flags", Value: "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", Evidence: audit.EvidenceRegister},
			{Name: "mode", Value: "0666", Evidence: audit.EvidenceRegister},
		}, Class: "file-write", Verdict: audit.VerdictAllowed,
	}}
}

func open(t testing.TB, root string, o Options) *Writer {
	t.Helper()
	w, err := OpenWriter(Dir(root, testID), testID, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func appendAll(t testing.TB, w *Writer, n int) {
	t.Helper()
	for i := range n {
		if err := w.Append(call(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// check fails unless the stream has n records and a whole chain.
func check(t testing.TB, dir string, n uint64) {
	t.Helper()
	if got, err := checkChain(dir); err != nil || got != n {
		t.Fatalf("chain has %d records, error %v; want %d and none", got, err, n)
	}
}

func TestAppend(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	w := open(t, root, Options{})
	appendAll(t, w, 3)
	check(t, dir, 3) // at once, without Sync or Close
	if w.Seq() != 3 || !w.Recovered().IsZero() {
		t.Errorf("seq %d, recovered %+v; want 3 and nothing", w.Seq(), w.Recovered())
	}
	data, err := os.ReadFile(filepath.Join(dir, "00000001.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if _, err := record.ParseStrict(line); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	for path, mode := range map[string]os.FileMode{
		root + "/" + PodName(testID.Namespace, testID.Pod, testID.PodUID): 0o700,
		dir: 0o700, dir + "/00000001.ndjson": 0o600, dir + "/folded": 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, error %v; want %v", path, info.Mode(), err, mode)
		}
	}
	if err := w.Append(&audit.Event{Kind: "nonsense"}); err == nil || w.Seq() != 3 {
		t.Errorf("an invalid event: error %v, seq %d", err, w.Seq())
	}
}

// TestChainByHand runs the recipe of the documentation, which has nothing of this package.
func TestChainByHand(t *testing.T) {
	doc, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "```sh\n")
	recipe, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("docs/events.md has no recipe")
	}
	verify := func(dir string) (string, error) {
		cmd := exec.Command("sh", "-c", recipe)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	root := t.TempDir()
	w := open(t, root, Options{SegmentBytes: 2000})
	appendAll(t, w, 9)
	if out, err := verify(w.dir.Name()); err != nil || out != "" {
		t.Errorf("of a whole stream the recipe says %v: %s", err, out)
	}
	changed := copyStream(t, w.dir.Name())
	path := filepath.Join(Dir(changed, testID), segmentName(3))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte("out.txt"), []byte("ouT.txt"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(Dir(changed, testID)); err == nil || !strings.Contains(out, "ouT.txt") {
		t.Errorf("of a changed stream the recipe says %v: %s", err, out)
	}
}

func TestRotationAndReopen(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	total := 0
	for range 4 {
		w := open(t, root, Options{SegmentBytes: 3000})
		appendAll(t, w, 11)
		total += 11
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check(t, dir, uint64(total))
	segments, err := Segments(dir)
	if err != nil || len(segments) < 5 {
		t.Fatalf("%d segments, error %v", len(segments), err)
	}
	for i, s := range segments {
		info, err := os.Stat(s.Path)
		if err != nil || s.Number != i+1 || info.Size() > 3000 {
			t.Errorf("segment %+v: size %d, error %v", s, info.Size(), err)
		}
	}
	// A record that is larger than a segment has one for itself.
	w := open(t, root, Options{SegmentBytes: 100})
	appendAll(t, w, 2)
	check(t, dir, uint64(total+2))
}

func TestAppendConcurrently(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{SegmentBytes: 20_000})
	const goroutines, each = 16, 100
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range each {
				e := call(i)
				if err := errors.Join(w.Fold(2), w.AppendFolded(e, 2)); err != nil {
					t.Error(err)
				}
				if i%30 == 0 {
					if err := w.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	check(t, Dir(root, testID), goroutines*each)
	if n := w.Folded(); n != 0 {
		t.Errorf("%d events are still folded", n)
	}
}

func TestOneWriter(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{})
	if _, err := OpenWriter(Dir(root, testID), testID, Options{LockWait: -1}); !errors.Is(err, ErrLocked) {
		t.Errorf("second writer: error %v, want ErrLocked", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { w.Close() })
	second, err := OpenWriter(Dir(root, testID), testID, Options{LockWait: time.Minute})
	if err != nil {
		t.Fatalf("after the first has closed: %v", err)
	}
	second.Close()
	if err := w.Append(call(0)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append to a closed writer: %v", err)
	}
	if err := w.Fold(1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("fold in a closed writer: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestRefusedDirectories(t *testing.T) {
	for _, tt := range []struct {
		name, err string
		prepare   func(root, pod, dir string) error
	}{
		{"pod is a link", "open", func(_, pod, _ string) error { return os.Symlink(os.TempDir(), pod) }},
		{"container is a link", "open", func(_, pod, dir string) error {
			return errors.Join(os.Mkdir(pod, 0o700), os.Symlink(os.TempDir(), dir))
		}},
		{"others may write", "writable by nobody else", func(_, pod, dir string) error {
			return errors.Join(os.Mkdir(pod, 0o700), os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770))
		}},
		{"another's", "must belong", func(_, pod, _ string) error {
			return errors.Join(os.Mkdir(pod, 0o700), os.Chown(pod, 1, 1))
		}},
		{"pod is a file", "open", func(_, pod, _ string) error { return os.WriteFile(pod, nil, 0o600) }},
		{"segment is a link", "open", func(_, pod, dir string) error {
			return errors.Join(os.MkdirAll(dir, 0o700), os.Symlink("/dev/null", dir+"/00000001.ndjson"))
		}},
		{"segment is a pipe", "not a regular file", func(_, pod, dir string) error {
			return errors.Join(os.MkdirAll(dir, 0o700), unix.Mkfifo(dir+"/00000001.ndjson", 0o600))
		}},
		{"counters are a link", "open", func(_, pod, dir string) error {
			return errors.Join(os.MkdirAll(dir, 0o700), os.Symlink("/dev/null", dir+"/folded"))
		}},
	} {
		root := t.TempDir()
		dir := Dir(root, testID)
		if err := tt.prepare(root, filepath.Dir(dir), dir); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenWriter(dir, testID, Options{}); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.err)
		}
	}
	for _, dir := range []string{"/", ".", "/a", "..", "../.."} {
		if _, err := OpenWriter(dir, testID, Options{}); err == nil {
			t.Errorf("directory %q is accepted", dir)
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	w := open(t, t.TempDir(), Options{})
	e := call(1)
	var n float64
	for range 10 { // all of the process counts: what tests before have left may end just now
		if n = testing.AllocsPerRun(200, func() {
			if err := errors.Join(w.Append(e), w.Fold(3), w.AppendFolded(e, 3)); err != nil {
				t.Fatal(err)
			}
		}); n == 0 {
			return
		}
	}
	t.Errorf("%v allocations", n)
}

// TestLargeRecordIsNotKept: one huge record must not cost the shim memory for the rest of its life.
func TestLargeRecordIsNotKept(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{})
	e := call(1)
	e.Syscall.Args[1].Value = strings.Repeat("\x01", audit.MaxValue)
	if err := w.Append(e); err != nil {
		t.Fatal(err)
	}
	if cap(w.line) > keepLine {
		t.Errorf("a buffer of %d bytes is kept", cap(w.line))
	}
	appendAll(t, w, 2)
	check(t, Dir(root, testID), 3)
}

func BenchmarkAppend(b *testing.B) {
	key, err := signature.New()
	if err != nil {
		b.Fatal(err)
	}
	for _, place := range []string{"/dev/shm", "/var/tmp"} {
		for name, o := range map[string]Options{"unsigned": {}, "signed": {Key: key}} {
			b.Run(strings.ReplaceAll(place[1:], "/", "-")+"/"+name, func(b *testing.B) {
				root, err := os.MkdirTemp(place, "metsuke-bench")
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { os.RemoveAll(root) })
				w := open(b, root, o)
				e := call(1)
				b.ReportAllocs()
				for b.Loop() {
					if err := w.Append(e); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(int64(len(seal(w.enc.AppendJSON(w.line, e, w.seq))) - chainLen))
			})
		}
	}
}

func BenchmarkFold(b *testing.B) {
	w := open(b, b.TempDir(), Options{})
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Fold(1); err != nil {
			b.Fatal(err)
		}
	}
}

// A process that continues a stream whose writer died says so in the stream.
func ExampleWriter_Recovered() {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	w, err := OpenWriter(Dir(root, testID), testID, Options{})
	if err != nil {
		panic(err)
	}
	defer w.Close()
	if found := w.Recovered(); !found.IsZero() {
		err = w.AppendFolded(&audit.Event{Time: time.Now(), Kind: audit.KindLoss, Loss: &audit.Loss{
			Reason: audit.LossShim, Count: found.Folded, Bytes: found.Bytes,
		}}, found.Folded)
	}
	fmt.Println(w.Seq(), err)
	// Output: 0 <nil>
}

func ExampleDir() {
	fmt.Println(Dir("/var/log/metsuke/audit", audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "6f1c", Container: "agent"}))
	// Output: /var/log/metsuke/audit/team-a_coder_6f1c/agent
}
