// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestMarshal(t *testing.T) {
	for name, p := range map[string]Policy{"typical": typicalPolicy(t), "mixed": testPolicy(), "empty": {Native: ArchARM64}} {
		t.Run(name, func(t *testing.T) {
			prog := mustCompile(t, p)
			raw, err := prog.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			again, err := UnmarshalProgram(raw)
			if err != nil {
				t.Fatal(err)
			}
			if len(prog.nodes) == 0 { // none, or no list of them
				again.nodes = prog.nodes
			}
			if len(prog.origins) == 0 {
				again.origins = prog.origins
			}
			if !reflect.DeepEqual(prog, again) {
				t.Error("the program is another one after it was marshaled")
			}
			if len(raw) > 8<<10 {
				t.Errorf("%d bytes", len(raw))
			}
			for n := range raw {
				if _, err := UnmarshalProgram(raw[:n]); err == nil {
					t.Fatalf("the first %d of %d bytes are taken for a program", n, len(raw))
				}
			}
			if _, err := UnmarshalProgram(append(bytes.Clone(raw), 0)); err == nil {
				t.Error("a byte after it is taken")
			}
		})
	}
	if _, err := UnmarshalProgram(make([]byte, maxMarshaled+1)); err == nil {
		t.Error("a program of any size is taken")
	}
}

func TestDigest(t *testing.T) {
	a, b := mustCompile(t, typicalPolicy(t)), mustCompile(t, typicalPolicy(t))
	if a.Digest() != b.Digest() || len(a.Digest()) != 64 {
		t.Errorf("one policy, digests %s and %s", a.Digest(), b.Digest())
	}
	if other := mustCompile(t, testPolicy()); other.Digest() == a.Digest() {
		t.Error("two policies, one digest")
	}
}

// FuzzUnmarshal: whatever is taken for a program is one: it can be loaded, decides every call, and has one form.
func FuzzUnmarshal(f *testing.F) {
	for _, p := range []Policy{{Native: ArchAMD64}, {Native: ArchARM64, Layers: []Layer{{Name: "l", Default: ActionDeny}}}, testPolicy()} {
		raw, err := mustCompile(f, p).MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		prog, err := UnmarshalProgram(raw)
		if err != nil {
			return
		}
		again, err := prog.MarshalBinary()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("marshaled again it is another: %v", err)
		}
		m := newVM(t, prog.Filter())
		rnd := rand.New(rand.NewPCG(5, 6))
		for range 200 {
			d := &Data{Nr: int32(rnd.Uint32() >> rnd.IntN(32)), Arch: pick(rnd, ArchAMD64, Arch386, ArchARM64, ArchARM, 0)}
			for i := range d.Args {
				d.Args[i] = rnd.Uint64() >> rnd.IntN(64)
			}
			dec, ret := prog.Decide(d), m.run(t, d)
			if ret == retAllow && dec.Action != ActionAllow || ret == retUserNotif && dec.Action == ActionAllow {
				t.Fatalf("%+v: the filter returns %s, decided is %+v", d, returnName(ret), dec)
			}
		}
		Disassemble(prog.Filter())
	})
}
