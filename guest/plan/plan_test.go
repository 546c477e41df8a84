// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ptr(n int) *int { return &n }

// insns returns a filter of n instructions, all different.
func insns(n int) (f []byte) {
	for i := range n {
		f = AppendInsn(f, 6, 0, 0, uint32(i))
	}
	return f
}

var plans = map[string]Plan{
	"least": {Filter: insns(1)},
	"most": {
		Filter:      insns(MaxInsns),
		FilterFlags: FlagLog | FlagSpecAllow,
		Caps:        &Caps{Bounding: ^uint64(0), Inheritable: 1, Ambient: 1 << 40, Effective: 1 << 21},
		NoNewPrivs:  true,
		OOMScoreAdj: ptr(-1000),
		Rlimits:     []Rlimit{{7, 1024, 4096}, {15, ^uint64(0), ^uint64(0)}},
		Env:         []EnvVar{{0, "GOGC=off"}, {3, "GODEBUG="}, {1 << 30, "GOX=" + strings.Repeat("x", 1<<16)}},
	},
	"caps that are empty": {Filter: insns(2), Caps: &Caps{}},
	"oom of zero":         {Filter: insns(2), OOMScoreAdj: ptr(0)},
	"one variable":        {Filter: insns(2), Env: []EnvVar{{5, "A=b=c"}}},
}

func TestPlanComesThroughUnchanged(t *testing.T) {
	for name, p := range plans {
		t.Run(name, func(t *testing.T) {
			frame, err := p.Append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			frame, ok := bytes.CutPrefix(frame, []byte("before"))
			if !ok {
				t.Fatal("Append does not append")
			}
			typ, n, err := ParseHeader(frame)
			if err != nil || typ != TypePlan || n != len(frame)-HeaderSize {
				t.Fatalf("header: type %d, size %d, %v; frame has %d bytes", typ, n, err, len(frame))
			}
			got, err := DecodePlan(frame[HeaderSize:])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&p, got); diff != "" {
				t.Errorf("plan changed (-sent +got):\n%s", diff)
			}
		})
	}
}

func TestPlanIsRefusedByTheSender(t *testing.T) {
	tests := map[string]struct {
		plan Plan
		want error
	}{
		"no filter":               {Plan{}, ErrSize},
		"half an instruction":     {Plan{Filter: insns(2)[:12]}, ErrSize},
		"a filter too long":       {Plan{Filter: insns(MaxInsns + 1)}, ErrSize},
		"TSYNC":                   {Plan{Filter: insns(1), FilterFlags: 1}, ErrValue},
		"NEW_LISTENER":            {Plan{Filter: insns(1), FilterFlags: 1 << 3}, ErrValue},
		"oom too high":            {Plan{Filter: insns(1), OOMScoreAdj: ptr(1001)}, ErrValue},
		"oom too low":             {Plan{Filter: insns(1), OOMScoreAdj: ptr(-1001)}, ErrValue},
		"unknown limit":           {Plan{Filter: insns(1), Rlimits: []Rlimit{{16, 0, 0}}}, ErrValue},
		"soft above hard":         {Plan{Filter: insns(1), Rlimits: []Rlimit{{7, 2, 1}}}, ErrValue},
		"too many limits":         {Plan{Filter: insns(1), Rlimits: make([]Rlimit, 17)}, ErrSize},
		"too many variables":      {Plan{Filter: insns(1), Env: make([]EnvVar, MaxEnv+1)}, ErrSize},
		"variables too big":       {Plan{Filter: insns(1), Env: []EnvVar{{0, "A=" + strings.Repeat("x", MaxEnvSize)}}}, ErrSize},
		"variable without a name": {Plan{Filter: insns(1), Env: []EnvVar{{0, "=b"}}}, ErrValue},
		"variable without value":  {Plan{Filter: insns(1), Env: []EnvVar{{0, "ab"}}}, ErrValue},
		"NUL in a variable":       {Plan{Filter: insns(1), Env: []EnvVar{{0, "a=\x00"}}}, ErrValue},
		"negative index":          {Plan{Filter: insns(1), Env: []EnvVar{{-1, "a=b"}}}, ErrValue},
		"index too great":         {Plan{Filter: insns(1), Env: []EnvVar{{1<<30 + 1, "a=b"}}}, ErrValue},
		"indices not ascending":   {Plan{Filter: insns(1), Env: []EnvVar{{1, "a=b"}, {1, "c=d"}}}, ErrValue},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := test.plan.Append(nil); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// body returns the body of the frame of a plan.
func body(t testing.TB, p Plan) []byte {
	t.Helper()
	frame, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return frame[HeaderSize:]
}

func TestPlanIsRefusedByTheReceiver(t *testing.T) {
	least := body(t, Plan{Filter: insns(1)})
	// Its layout: 4 count, 8 filter, 4 flags, 1 bits, 1 limits, 4 variables.
	edit := func(at int, b ...byte) []byte {
		out := slices.Clone(least)
		copy(out[at:], b)
		return out
	}
	tests := map[string]struct {
		body []byte
		want error
	}{
		"nothing":                 {nil, ErrTruncated},
		"trailing byte":           {append(slices.Clone(least), 0), ErrTrailing},
		"reserved bit":            {edit(16, 8), ErrValue},
		"flag of the launcher":    {edit(12, 8), ErrValue},
		"no instructions":         {edit(0, 0, 0, 0, 0), ErrTrailing},
		"more than there are":     {edit(0, 3), ErrTruncated},
		"more than the kernel's":  {edit(0, 1, 16), ErrSize},
		"count that would wrap":   {edit(0, 0, 0, 0, 0x20), ErrSize},
		"a limit that is missing": {edit(17, 1), ErrTruncated},
		"many variables":          {edit(18, 255, 255, 255, 255), ErrSize},
		"caps that are missing":   {edit(16, 1), ErrTruncated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := DecodePlan(test.body); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	for n := range least {
		if _, err := DecodePlan(least[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a plan", n, len(least))
		}
	}
}

func TestHeaderIsStrict(t *testing.T) {
	header := func(magic string, version, typ byte, size uint32) []byte {
		return binary.LittleEndian.AppendUint32(append([]byte(magic), version, typ), size)
	}
	tests := map[string]struct {
		head []byte
		want error
	}{
		"short":                  {header("MT", Version, 4, 0)[:7], ErrTruncated},
		"other protocol":         {header("GE", Version, 4, 0), ErrMagic},
		"other version":          {header("MT", Version+1, 4, 0), ErrVersion},
		"type 0":                 {header("MT", Version, 0, 0), ErrType},
		"type 7":                 {header("MT", Version, 7, 0), ErrType},
		"empty token":            {header("MT", Version, byte(TypeHello), 0), ErrSize},
		"long token":             {header("MT", Version, byte(TypeHello), MaxToken+1), ErrSize},
		"armed with a body":      {header("MT", Version, byte(TypeArmed), 1), ErrSize},
		"listener with a body":   {header("MT", Version, byte(TypeListener), 1), ErrSize},
		"half a number":          {header("MT", Version, byte(TypeListenerAt), 2), ErrSize},
		"plan of 4 GiB":          {header("MT", Version, byte(TypePlan), 1<<32-1), ErrSize},
		"failure of 2 GiB":       {header("MT", Version, byte(TypeFailure), 1<<31), ErrSize},
		"failure without a body": {header("MT", Version, byte(TypeFailure), 0), ErrSize},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, _, err := ParseHeader(test.head); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestListenerAt(t *testing.T) {
	for _, fd := range []int{0, 9, 1 << 30} {
		frame := AppendListenerAt(nil, fd)
		if typ, n, err := ParseHeader(frame); err != nil || typ != TypeListenerAt || n != len(frame)-HeaderSize {
			t.Errorf("%d: type %d, %d bytes, %v", fd, typ, n, err)
		}
		if got, err := DecodeListenerAt(frame[HeaderSize:]); err != nil || got != fd {
			t.Errorf("sent %d, got %d, %v", fd, got, err)
		}
	}
	for _, body := range [][]byte{nil, {1, 0, 0}, {1, 0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {1, 0, 0, 0x40}} {
		if fd, err := DecodeListenerAt(body); err == nil {
			t.Errorf("%x is taken for %d", body, fd)
		}
	}
}

func TestTheGreatestPlanFitsItsBound(t *testing.T) {
	p := Plan{Filter: insns(MaxInsns), Caps: &Caps{}, OOMScoreAdj: ptr(1), Rlimits: make([]Rlimit, MaxRlimits)}
	for i := range MaxEnv {
		p.Env = append(p.Env, EnvVar{i, "A=" + strings.Repeat("x", MaxEnvSize/MaxEnv-2)})
	}
	frame, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ParseHeader(frame); err != nil {
		t.Errorf("a plan that Append makes is refused by ParseHeader: %v", err)
	}
}

func TestHelloComesThroughUnchanged(t *testing.T) {
	for _, token := range []string{"x", "ABC-def_234", strings.Repeat("t", MaxToken)} {
		frame, err := Hello{Token: token}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := DecodeHello(frame[HeaderSize:]); err != nil || h.Token != token {
			t.Errorf("sent %q, got %q, %v", token, h.Token, err)
		}
	}
	for _, token := range []string{"", "a b", "a\n", "\x7f", "ä", strings.Repeat("t", MaxToken+1)} {
		if _, err := (Hello{Token: token}).Append(nil); err == nil {
			t.Errorf("token %q is sent", token)
		}
		if _, err := DecodeHello([]byte(token)); err == nil {
			t.Errorf("token %q is taken", token)
		}
	}
}

func TestFailureComesThroughUnchanged(t *testing.T) {
	for stage := Stage(1); stage < stageEnd; stage++ {
		if stage.String() == "" || stage.String() == Stage(0).String() {
			t.Errorf("stage %d has no name", stage)
		}
		for _, arg := range []string{"", "x", "/bin/\x00\xff", strings.Repeat("a", MaxArg)} {
			want := Failure{Stage: stage, Errno: 0x1234, Arg: arg}
			frame := want.Append(nil)
			if _, n, err := ParseHeader(frame); err != nil || n != len(frame)-HeaderSize {
				t.Fatalf("header of %v: size %d, %v", want, n, err)
			}
			if got, err := DecodeFailure(frame[HeaderSize:]); err != nil || got != want {
				t.Errorf("sent %v, got %v, %v", want, got, err)
			}
		}
	}
	long := Failure{Stage: 1, Arg: strings.Repeat("a", MaxArg+10)}.Append(nil)
	if f, err := DecodeFailure(long[HeaderSize:]); err != nil || len(f.Arg) != MaxArg {
		t.Errorf("a long argument came as %d bytes, %v", len(f.Arg), err)
	}
	for _, bad := range [][]byte{
		nil, {1}, {0, 0, 0, 0, 0, 0, 0}, {byte(stageEnd), 0, 0, 0, 0, 0, 0},
		{1, 0, 0, 1, 0, 0, 0}, {1, 0, 0, 0, 0, 0, 0, 9}, {1, 0, 0, 1, 16, 0, 0},
	} {
		if f, err := DecodeFailure(bad); err == nil {
			t.Errorf("%v is taken for %v", bad, f)
		}
	}
}
