// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/internal/goldentest"
)

var (
	moment   = time.Date(2026, 11, 21, 10, 31, 9, 802_000_001, time.UTC)
	identity = audit.Identity{
		Node: "node-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d",
		Container: "agent", ContainerID: "9f3c0c1e", Profile: "coder", ProfileDigest: "77aa",
	}
)

// full has one event of each kind with every field set, in the order of Kinds.
func full() []audit.Event {
	return []audit.Event{
		{Time: moment, Kind: audit.KindStart, Receipt: &audit.Receipt{
			Version: "0.1.0", Kernel: "6.18.0", Placement: "host", Delegate: "io.containerd.runc.v2",
			Image: "docker.io/library/agent:1", PID: 4711, SeccompMode: 2, Filters: 1, FilterDigest: "3f9c",
			NoNewPrivs: true, OnLoss: "kill", Durability: "batched", FlushInterval: time.Second, Limits: []audit.ReceiptLimit{
				{Name: "pids", Asked: "256", Found: "256"},
				{Name: "memoryHigh", Asked: "1800Mi", BestEffort: true},
			},
		}},
		{Time: moment, Kind: audit.KindTiming, Timing: &audit.Timing{
			Began: moment.Add(-time.Second), SandboxID: "5ad0", Delegate: "io.containerd.runc.v2", Placement: "host",
			Image: "docker.io/library/agent:1", Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Laps: []audit.Lap{
				{Phase: "resolve", Duration: 2 * time.Millisecond},
				{Phase: "delegate", Offset: 3 * time.Millisecond, Duration: 120_000_001},
			},
		}},
		{Time: moment, Exec: "e1", Kind: audit.KindSyscall, Syscall: &audit.Syscall{
			PID: 41, TID: 42, PPID: 1, UID: 1000, GID: 1001, Comm: "python3", Exe: "/usr/bin/python3.13",
			Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Args: []audit.Arg{
				{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
				{Name: "pathname", Value: "/etc/passwd", Evidence: audit.EvidencePeeked, Truncated: true},
			},
			Class: "file-write", Verdict: audit.VerdictDenied, Errno: "EPERM", RuleID: "no-passwd", Origin: "coder",
			Count: 37, Until: moment.Add(time.Second),
		}},
		{Time: moment, Exec: "e1", Kind: audit.KindExec, ExecStart: &audit.ExecStart{
			PID: 77, UID: 1000, GID: 1001, Terminal: true, SeccompMode: 2, Filters: 1, NoNewPrivs: true,
			Argv: []string{"sh", "-c", "ls /"}, Truncated: true,
		}},
		{Time: moment, Kind: audit.KindLimit, Limit: &audit.Limit{
			Operation: "update", Resource: "memory", Requested: "8Gi", Ceiling: "2Gi", Applied: "2Gi",
		}},
		{Time: moment, Kind: audit.KindOOM, OOM: &audit.OOM{Count: 1, MemoryLimit: 2 << 30}},
		{Time: moment, Kind: audit.KindLoss, Loss: &audit.Loss{
			Reason: audit.LossNode, Count: 12, Bytes: 100, OnLoss: "kill", Detail: "killed",
			From: moment, Until: moment.Add(time.Minute), FlushInterval: time.Second,
		}},
		{Time: moment, Kind: audit.KindExit, Exit: &audit.Exit{Status: 137, Signal: "SIGKILL", Cause: audit.CauseOOM}},
		{Time: moment, Kind: audit.KindEnd, End: &audit.End{
			Records: 7, Bytes: 4096, Calls: 37, Denied: 36, Losses: 1, Missing: 12,
		}},
	}
}

// sparse has one event of each kind with as little as it can have.
func sparse() []audit.Event {
	return []audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{}},
		{Kind: audit.KindTiming, Timing: &audit.Timing{}},
		{Kind: audit.KindSyscall, Syscall: &audit.Syscall{}},
		{Kind: audit.KindExec, ExecStart: &audit.ExecStart{}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{}},
		{Kind: audit.KindExit, Exit: &audit.Exit{}},
		{Kind: audit.KindEnd, End: &audit.End{}},
	}
}

func TestAppendJSONGolden(t *testing.T) {
	var got []byte
	for i, e := range slices.Concat(full(), sparse()) {
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		got = append(e.AppendJSON(got, &identity, uint64(i+1)), '\n')
	}
	goldentest.Equal(t, "testdata/records.ndjson", got)
}

func TestEncoderAgrees(t *testing.T) {
	enc := audit.NewEncoder(identity)
	for _, e := range slices.Concat(full(), sparse()) {
		want := e.AppendJSON([]byte("x"), &identity, 9)
		if got := enc.AppendJSON([]byte("x"), &e, 9); !bytes.Equal(got, want) {
			t.Errorf("kind %s:\nencoder %s\nevent   %s", e.Kind, got, want)
		}
	}
}

// TestFieldTables holds the tables, from which the reference is generated, to what is written.
func TestFieldTables(t *testing.T) {
	for i, kind := range audit.Kinds() {
		all := slices.Concat(audit.CommonFields(), audit.Fields(audit.Kind(kind.Name)))
		check := func(e audit.Event, optional bool) {
			if string(e.Kind) != kind.Name {
				t.Fatalf("event %d is of kind %s, want %s", i, e.Kind, kind.Name)
			}
			var want []string
			for _, f := range all {
				if !f.Optional || optional {
					want = append(want, f.Name+" "+f.Type)
				}
			}
			if diff := cmp.Diff(want, keys(t, e.AppendJSON(nil, &identity, 1))); diff != "" {
				t.Errorf("kind %s (-table +written):\n%s", kind.Name, diff)
			}
		}
		check(full()[i], true)
		check(sparse()[i], false)
	}
	var call struct{ Args []json.RawMessage }
	var receipt struct{ Limits []json.RawMessage }
	var timing struct{ Laps []json.RawMessage }
	unmarshal(t, full()[0].AppendJSON(nil, &identity, 1), &receipt)
	unmarshal(t, full()[1].AppendJSON(nil, &identity, 1), &timing)
	unmarshal(t, full()[2].AppendJSON(nil, &identity, 1), &call)
	for _, tt := range []struct {
		fields       []audit.Field
		least, whole []byte
	}{
		{audit.ArgFields(), call.Args[0], call.Args[1]},
		{audit.LimitFields(), receipt.Limits[0], receipt.Limits[1]},
		{audit.LapFields(), timing.Laps[0], timing.Laps[1]},
	} {
		var least, whole []string
		for _, f := range tt.fields {
			whole = append(whole, f.Name+" "+f.Type)
			if !f.Optional {
				least = append(least, f.Name+" "+f.Type)
			}
		}
		if diff := cmp.Diff(least, keys(t, tt.least)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(whole, keys(t, tt.whole)); diff != "" {
			t.Error(diff)
		}
	}
}

func unmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// keys returns the names and types of an object's members in their order.
func keys(t *testing.T, object []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	var out []string
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		name, kind := key.(string), "string"
		switch value.(type) {
		case float64:
			kind = "integer"
		case bool:
			kind = "boolean"
		case []any:
			kind = "list"
		case string:
			if slices.Contains([]string{"time", "until", "began", "from"}, name) {
				kind = "time"
			}
		}
		out = append(out, name+" "+kind)
	}
	return out
}

func TestAppendJSONDoesNotAllocate(t *testing.T) {
	enc := audit.NewEncoder(identity)
	buf := make([]byte, 0, 4096)
	for _, e := range full() {
		if e.Syscall != nil {
			e.Syscall.Comm = "a\xff\n\u202e" // the slow paths as well
		}
		if n := testing.AllocsPerRun(100, func() { buf = enc.AppendJSON(buf[:0], &e, 1) }); n != 0 {
			t.Errorf("kind %s: %v allocations by the encoder", e.Kind, n)
		}
		if n := testing.AllocsPerRun(100, func() { buf = e.AppendJSON(buf[:0], &identity, 1) }); n != 0 {
			t.Errorf("kind %s: %v allocations by the event", e.Kind, n)
		}
		if n := testing.AllocsPerRun(100, func() { _ = e.Validate() }); n != 0 {
			t.Errorf("kind %s: %v allocations by Validate", e.Kind, n)
		}
	}
}

// TestLargestRecord fills everything that a record can hold with what takes most room.
func TestLargestRecord(t *testing.T) {
	long := strings.Repeat("\x01\xff", audit.MaxValue)
	id := audit.Identity{long, long, long, long, long, long, long, long}
	call := audit.Syscall{Comm: long, Exe: long, Syscall: long, Arch: long, Class: long, Verdict: audit.Verdict(long),
		Errno: long, RuleID: long, Origin: long, Count: 1 << 63, Nr: -1 << 31}
	for range audit.MaxArgs {
		call.Args = append(call.Args, audit.Arg{long, long, audit.Evidence(long), true})
	}
	receipt := audit.Receipt{Version: long, Kernel: long, Placement: long, Delegate: long, Image: long, FilterDigest: long, OnLoss: long}
	for range audit.MaxLimits {
		receipt.Limits = append(receipt.Limits, audit.ReceiptLimit{long, long, long, true})
	}
	timing := audit.Timing{SandboxID: long, Delegate: long, Placement: long, Image: long, Traceparent: long}
	for range audit.MaxLaps {
		timing.Laps = append(timing.Laps, audit.Lap{long, -1 << 63, -1 << 63})
	}
	argv := slices.Repeat([]string{""}, 2*audit.MaxValue)
	for _, e := range []audit.Event{
		{Exec: long, Kind: audit.KindSyscall, Syscall: &call},
		{Exec: long, Kind: audit.KindStart, Receipt: &receipt},
		{Exec: long, Kind: audit.KindTiming, Timing: &timing},
		{Exec: long, Kind: audit.KindExec, ExecStart: &audit.ExecStart{Argv: argv}},
		{Exec: long, Kind: audit.KindExec, ExecStart: &audit.ExecStart{Argv: []string{long}}},
		{Exec: long, Kind: audit.KindLoss, Loss: &audit.Loss{Reason: long, Detail: long, OnLoss: long}},
	} {
		got := e.AppendJSON(nil, &id, 1<<63)
		if len(got) > audit.MaxRecord-128 { // the chain comes on top
			t.Errorf("kind %s: %d bytes, more than MaxRecord", e.Kind, len(got))
		}
		if _, err := record.ParseStrict(got); err != nil {
			t.Errorf("kind %s: %v", e.Kind, err)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		time time.Time
		want string
	}{
		{moment, "2026-11-21T10:31:09.802000001Z"},
		{moment.In(time.FixedZone("", 5*3600)), "2026-11-21T10:31:09.802000001Z"},
		{time.Time{}, "0001-01-01T00:00:00.000000000Z"},
		{time.Date(12345, 2, 29, 0, 0, 0, 0, time.UTC), "9999-12-31T23:59:59.999999999Z"},
		{time.Date(-5, 2, 29, 0, 0, 0, 0, time.UTC), "0000-01-01T00:00:00.000000000Z"},
	} {
		e := audit.Event{Time: tt.time, Kind: audit.KindOOM, OOM: &audit.OOM{}}
		var got struct{ Time string }
		unmarshal(t, e.AppendJSON(nil, &identity, 1), &got)
		if got.Time != tt.want {
			t.Errorf("%v is written %s, want %s", tt.time, got.Time, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	syscall, exit := &audit.Syscall{}, &audit.Exit{}
	for _, tt := range []struct {
		name string
		e    audit.Event
	}{
		{"no kind", audit.Event{Syscall: syscall}},
		{"unknown kind", audit.Event{Kind: "over", Syscall: syscall}},
		{"no payload", audit.Event{Kind: audit.KindSyscall}},
		{"another payload", audit.Event{Kind: audit.KindSyscall, Exit: exit}},
		{"two payloads", audit.Event{Kind: audit.KindSyscall, Syscall: syscall, Exit: exit}},
		{"too many arguments", audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Args: make([]audit.Arg, audit.MaxArgs+1)}}},
		{"too many limits", audit.Event{Kind: audit.KindStart, Receipt: &audit.Receipt{Limits: make([]audit.ReceiptLimit, audit.MaxLimits+1)}}},
		{"too many laps", audit.Event{Kind: audit.KindTiming, Timing: &audit.Timing{Laps: make([]audit.Lap, audit.MaxLaps+1)}}},
	} {
		var invalid *audit.InvalidError
		if err := tt.e.Validate(); !errors.As(err, &invalid) {
			t.Errorf("%s: error is %v, want an InvalidError", tt.name, err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e, enc := full()[2], audit.NewEncoder(identity)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = enc.AppendJSON(buf[:0], &e, 1)
	}
	b.SetBytes(int64(len(buf)))
}
