// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
)

var who = audit.Identity{
	Node: "node-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d",
	Container: "agent", ContainerID: strings.Repeat("9f3c0c1e", 8), Profile: "coder", ProfileDigest: strings.Repeat("77aa", 16),
}

// line is a call as a stream has it, with s in each of its strings.
func line(id audit.Identity, seq uint64, s string) []byte {
	e := audit.Event{Time: time.Unix(1_800_000_000, int64(seq)), Exec: s, Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 41, TID: 42, PPID: 1, UID: 1000, GID: 1000, Comm: s, Exe: "/usr/bin/python3.13" + s,
		Syscall: "openat", Nr: -257, Arch: "SCMP_ARCH_X86_64", Args: []audit.Arg{
			{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
			{Name: "path", Value: "/tmp/out.txt" + s, Evidence: audit.EvidencePeeked, Truncated: true},
			{Name: "flags", Value: "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", Evidence: audit.EvidenceRegister},
			{Name: "mode", Value: "0666", Evidence: audit.EvidenceRegister},
		}, Class: "file-write", Verdict: audit.VerdictDenied, Errno: "EPERM", RuleID: "no-" + s, Origin: s,
		Count: seq, Until: time.Unix(1_800_000_009, 0),
	}}
	r := Record{Seq: seq, Identity: id, Event: e, Chain: strings.Repeat("ab", 32)}
	return append(r.Append(nil), '\n')
}

// isFast fails unless the line is one that the decoder reads by itself.
func isFast(t testing.TB, text []byte) {
	t.Helper()
	var d Decoder
	if !d.decode(bytes.TrimSuffix(text, []byte("\n"))) {
		t.Errorf("left to Parse: %s", text)
	}
}

// same fails unless the decoder reads a line as Parse does.
func same(t testing.TB, d *Decoder, text []byte) {
	t.Helper()
	got, err := d.Decode(text)
	want, wantErr := Parse(text)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("Decode says %v, Parse %v, of %q", err, wantErr, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("of %q (-Parse +Decode):\n%s", text, diff)
	}
}

func TestDecoder(t *testing.T) {
	var d Decoder
	other := who
	other.ContainerID, other.Profile = "b", "browser"
	for i, text := range [][]byte{
		line(who, 1, ""), line(who, 2, "x"), line(other, 3, "\"\\\n\t\r\x1b\x7f"), line(who, 4, "ünïcode €"), line(who, 5, "\u202e\u0085"),
		line(who, 6, "\xff'\\"), line(who, 7, "$'"), line(other, 8, strings.Repeat("longer than eight bytes ", 9)),
	} {
		isFast(t, text)
		same(t, &d, text)
		if r, _ := d.Decode(text); r.Seq != uint64(i+1) || r.Event.Syscall.PID != 41 {
			t.Errorf("read %+v", r)
		}
	}
	same(t, &d, line(who, 9, "\U000e0001")) // a surrogate pair is left to Parse
	golden, err := os.ReadFile("../testdata/records.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(golden) {
		same(t, &d, text)
	}
}

// Lines that are nearly as the encoder writes them are read as Parse reads them, or refused as Parse refuses them.
func TestDecoderDoubts(t *testing.T) {
	var d Decoder
	text := string(line(who, 7, "s"))
	for _, edit := range [][2]string{
		{`"v":1`, `"v":2`}, {`"seq":7`, `"seq":0`}, {`"seq":7`, `"seq":07`}, {`"seq":7`, `"seq":18446744073709551616`},
		{`"seq":7`, `"seq":18446744073709551615`}, {`"pid":41`, `"pid":4294967296`}, {`"pid":41`, `"pid":-1`}, {`"pid":41`, `"pid": 41`},
		{`"nr":-257`, `"nr":-2147483648`}, {`"nr":-257`, `"nr":-2147483649`}, {`"nr":-257`, `"nr":2147483648`}, {`"nr":-257`, `"nr":-0`},
		{`"kind":"syscall"`, `"kind":"sys\u0063all"`}, {`"kind":"syscall"`, `"kind":"oom"`}, {`"comm"`, `"Comm"`},
		{`T08:00:00`, `T08:00:60`}, {`T08:00`, `T24:00`}, {`2027-01-15`, `2027-02-29`}, {`2027-01-15`, `2028-02-29`}, {`00000007Z"`, `00000007z"`},
		{`.000000007Z`, `,000000007Z`}, {`"comm":"s"`, `"comm":"s` + "\n" + `"`}, {`"comm":"s"`, `"comm":"\ud800"`}, {`"comm":"s"`, `"comm":"\u00e"`},
		{`"comm":"s"`, `"comm":"\u00E9"`}, {`"comm":"s"`, `"comm":"\/"`}, {`"comm":"s"`, `"comm":"\x"`}, {`"comm":"s"`, "\"comm\":\"\xff\""},
		{`"comm":"s"`, `"comm":"$'s"`}, {`"comm":"s"`, `"comm":"$'s'"`}, {`"node":"node-1"`, `"node":"$'\\xff'"`}, {`"truncated":true`, `"truncated":false`},
		{`]`, `,{"name":"a","value":"b","evidence":"c"},{"name":"a","value":"b","evidence":"c"},{"name":"a","value":"b","evidence":"c"},` +
			`{"name":"a","value":"b","evidence":"c"},{"name":"a","value":"b","evidence":"c"}]`},
		{`]`, `,]`}, {`[{`, `[,{`}, {`}]`, `}`}, {`,"chain"`, `,"newer":1,"chain"`}, {`,"count":7`, `,"count":7,"count":8`}, {`"}`, `"} `}, {`"}`, `"}}`},
		{`,"class":"file-write"`, `,"class":""`}, {`,"class":"file-write"`, ``}, {`,"until"`, `,"Until"`},
	} {
		if !strings.Contains(text, edit[0]) {
			t.Fatalf("the line has no %s", edit[0])
		}
		same(t, &d, []byte(strings.Replace(text, edit[0], edit[1], 1)))
		same(t, &d, []byte(text)) // what is kept of a line that was refused does not show in the next
	}
	for n := range len(text) {
		same(t, &d, []byte(text[:n]))
	}
}

// FuzzDecoder: whatever a line holds, and whatever was read before, the decoder and Parse read the same.
func FuzzDecoder(f *testing.F) {
	golden, err := os.ReadFile("../testdata/records.ndjson")
	if err != nil {
		f.Fatal(err)
	}
	for text := range bytes.Lines(golden) {
		f.Add(text)
	}
	f.Add(line(who, 3, "\"\\\n\u202e"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d Decoder
		known := line(who, 1, "x")
		same(t, &d, known)
		same(t, &d, text)
		same(t, &d, known)
	})
}

func TestDecoderDoesNotAllocate(t *testing.T) {
	var d Decoder
	text := line(who, 1, "\n")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Decode(text); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	text := line(who, 1, "")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var d Decoder
	for b.Loop() {
		if _, err := d.Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
