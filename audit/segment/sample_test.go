// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

var testID = audit.Identity{Node: "node-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c", Container: "agent", ContainerID: strings.Repeat("9f", 32)}

func call(i int) *audit.Event {
	return &audit.Event{Time: time.Unix(1_800_000_000, int64(i)), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 41, TID: 41, PPID: 1, Comm: "python3", Exe: "/usr/bin/python3.13", Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64",
		Args:  []audit.Arg{{Name: "pathname", Value: "/tmp/out.txt", Evidence: audit.EvidencePeeked}},
		Class: "file-write", Verdict: audit.VerdictAllowed,
	}}
}

func open(t testing.TB, root string, o stream.Options) *stream.Writer {
	t.Helper()
	w, err := stream.OpenWriter(stream.Dir(root, testID), testID, o)
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

func appendAll(t testing.TB, w *stream.Writer, n int) {
	t.Helper()
	for i := range n {
		if err := w.Append(call(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func seqOf(t testing.TB, line string) uint64 {
	t.Helper()
	link, _ := stream.Link{}.Follow([]byte(line))
	if link.Seq == 0 {
		t.Fatalf("not a record: %q", line)
	}
	return link.Seq
}
