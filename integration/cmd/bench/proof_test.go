// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

// shippedLines are the lines of a stream whose container made three calls, the last one a second after the others.
func shippedLines(t *testing.T, begin time.Time) (lines [][]byte, end verified) {
	t.Helper()
	id := audit.Identity{Namespace: "ns", Pod: "pod", PodUID: "uid", Container: "main", ContainerID: "c1"}
	dir := stream.Dir(t.TempDir(), id)
	w, err := stream.OpenWriter(dir, id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	call := &audit.Syscall{Syscall: "openat", Verdict: audit.VerdictAllowed, Args: []audit.Arg{
		{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister}, {Name: "path", Value: opened, Evidence: audit.EvidencePeeked},
	}}
	for i := range 4 {
		e := audit.Event{Time: begin.Add(time.Duration(i/2) * time.Second), Kind: audit.KindSyscall, Syscall: call}
		if i == 3 {
			e = audit.Event{Time: e.Time, Kind: audit.KindOOM, OOM: &audit.OOM{}}
		}
		if err := w.Append(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "00000001.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	lines = bytes.SplitAfter(content, []byte("\n"))[:4]
	last := lines[3]
	return lines, verified{Stream: "ns_pod_uid/main", Records: 4, Chain: string(last[len(last)-67 : len(last)-3])}
}

func TestArrivals(t *testing.T) {
	begin := time.Date(2026, 11, 21, 10, 31, 7, 0, time.UTC)
	lines, end := shippedLines(t, begin)
	head := []byte(`{"v":1,"time":"2026-11-21T10:31:07.000000000Z","node":"n","kind":"head","signed":{}}` + "\n")
	gap := []byte(`{"v":1,"time":"2026-11-21T10:31:07.000000000Z","node":"n","kind":"gap","reason":"removed"}` + "\n")
	changed := bytes.Replace(lines[1], []byte("/dev/null"), []byte("/dev/zero"), 1)
	for _, tt := range []struct {
		name        string
		lines       [][]byte
		made        uint64
		lost, twice uint64
		err         string
	}{
		{"all", lines, 3, 0, 0, ""},
		{"statements", [][]byte{head, lines[0], lines[1], head, lines[2], lines[3]}, 3, 0, 0, ""},
		{"twice", [][]byte{lines[0], lines[1], lines[0], lines[1], lines[2], lines[3]}, 3, 0, 2, ""},
		{"not recorded", lines, 5, 2, 0, ""},
		{"not made", lines, 2, 0, 0, "made 2"},
		{"left out", [][]byte{lines[0], lines[2], lines[3]}, 3, 0, 0, "out of number"},
		{"cut", lines[:3], 3, 0, 0, "ends with record 4"},
		{"changed", [][]byte{lines[0], changed, lines[2], lines[3]}, 3, 0, 0, "chain"},
		{"gap", [][]byte{lines[0], gap, lines[1], lines[2], lines[3]}, 3, 0, 0, "gap"},
		{"half a line", [][]byte{lines[0], lines[1][:40]}, 3, 0, 0, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "shipped")
			if err := os.WriteFile(file, bytes.Join(tt.lines, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := readArrivals(file, mark{})
			var lost uint64
			if err == nil {
				lost, err = a.lost(&load{calls: map[string]uint64{"c1": tt.made}}, []verified{end})
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || lost != tt.lost || a.twice != tt.twice {
				t.Errorf("%v: %d lost, want %d; %d twice, want %d", err, lost, tt.lost, a.twice, tt.twice)
			}
		})
	}
}

// What had happened before the mark and is behind it in the file is how far the shipper was behind.
func TestArrivalsBehind(t *testing.T) {
	begin := time.Date(2026, 11, 21, 10, 31, 7, 0, time.UTC)
	lines, _ := shippedLines(t, begin)
	file := filepath.Join(t.TempDir(), "shipped")
	if err := os.WriteFile(file, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := readArrivals(file, mark{size: int64(len(lines[0]) + 10), at: begin.Add(500 * time.Millisecond)})
	if err != nil || a.before != 1 || a.lag != 500*time.Millisecond {
		t.Errorf("%v: %d before the mark, %s behind", err, a.before, a.lag)
	}
}

func TestHistogram(t *testing.T) {
	h := histogram{5000: 1, 1000: 98, 2000: 1}
	for q, want := range map[float64]float64{0.5: 1, 0.98: 1, 0.99: 2, 1: 5} {
		if got := h.quantile(q); got != want {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
}
