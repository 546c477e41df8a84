// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

// writers write streams, as the shims of a node do, until they are stopped.
type writers struct {
	root    string
	written atomic.Int64 // records
	stop    chan struct{}
	group   sync.WaitGroup
}

// pods is how many streams are written at the same time.
const pods = 3

// startWriters begins some streams below a directory of the test's.
func startWriters(t *testing.T) *writers {
	t.Helper()
	w := &writers{root: filepath.Join(t.TempDir(), "audit"), stop: make(chan struct{})}
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		id := audit.Identity{
			Node: "node-1", Namespace: "team-a", Pod: fmt.Sprintf("coder-%d", i), PodUID: fmt.Sprintf("6f1c2a4e-%d", i), Container: "agent",
			ContainerID: fmt.Sprintf("%064d", i), Profile: "coder", ProfileDigest: fmt.Sprintf("%064d", 7),
		}
		// Segments that are soon complete.
		out, err := stream.OpenWriter(stream.Dir(w.root, id), id, stream.Options{Key: key, SegmentBytes: 128 << 10})
		if err != nil {
			t.Fatal(err)
		}
		w.group.Go(func() { w.write(t, out) })
	}
	t.Cleanup(w.end)
	return w
}

func (w *writers) write(t *testing.T, out *stream.Writer) {
	for i := 0; ; i++ {
		select {
		case <-w.stop:
			if err := out.Close(); err != nil {
				t.Error(err)
			}
			return
		case <-time.After(2 * time.Millisecond): // not a flood
		}
		if err := out.Append(call(i)); err != nil {
			t.Error(err)
			return
		}
		w.written.Add(1)
	}
}

// more waits until n further records are written: who writes is not held up.
func (w *writers) more(t *testing.T, n int64) {
	t.Helper()
	from := w.written.Load()
	until(t, "streams grow", func() bool { return w.written.Load() >= from+n })
}

func (w *writers) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.group.Wait()
}

// ids ends the writing, and returns the ids of all records: their chains.
func (w *writers) ids(t *testing.T) map[string]bool {
	t.Helper()
	w.end()
	streams, err := stream.List(w.root)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, s := range streams {
		segments, err := stream.Segments(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		for _, segment := range segments {
			data, err := os.ReadFile(segment.Path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range bytes.Lines(data) {
				ids[chain(t, line)] = true
			}
		}
	}
	if int64(len(ids)) != w.written.Load() {
		t.Fatalf("%d records in the streams, %d were written", len(ids), w.written.Load())
	}
	return ids
}

// chain is that of a record.
func chain(t *testing.T, line []byte) string {
	t.Helper()
	var record struct {
		Chain string `json:"chain"`
	}
	if err := json.Unmarshal(line, &record); err != nil || record.Chain == "" {
		t.Fatalf("not a record (%v): %q", err, line)
	}
	return record.Chain
}

func call(i int) *audit.Event {
	return &audit.Event{Time: time.Now(), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 41, TID: 41, PPID: 1, UID: 1000, GID: 1000, Comm: "python3", Exe: "/usr/bin/python3.13",
		Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Args: []audit.Arg{
			{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
			{Name: "path", Value: fmt.Sprintf("/tmp/%d", i), Evidence: audit.EvidencePeeked},
		}, Class: "file-write", Verdict: audit.VerdictAllowed,
	}}
}

// arrival is what came to the far side, once or more often.
type arrival struct {
	id, kind string
	line     []byte
}

// complete tells whether all records have arrived. Each arrival's id is that of its line, and nothing was left out on purpose.
func complete(t *testing.T, want map[string]bool, arrivals []arrival) (all bool, duplicates int) {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range arrivals {
		switch a.kind {
		case "head", "ledger": // statements of a node, which are not records
			continue
		case "gap":
			t.Fatalf("records were given up: %s", a.line)
		}
		if a.id != chain(t, a.line) || !want[a.id] {
			t.Fatalf("arrived as %s, and is not of a stream: %s", a.id, a.line)
		}
		if seen[a.id] {
			duplicates++
		}
		seen[a.id] = true
	}
	return len(seen) == len(want), duplicates
}
