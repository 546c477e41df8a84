// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
)

// vm runs a filter as the kernel would. The interpreter of x/net reads words big-endian, so the words of
// seccomp_data are given to it that way.
type vm struct{ *bpf.VM }

func newVM(t testing.TB, filter []Instruction) vm {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(filter))
	for i, in := range filter {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.JT, Jf: in.JF, K: in.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has instructions that x/net/bpf does not know")
	}
	m, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatalf("invalid filter: %v", err)
	}
	return vm{m}
}

func (m vm) run(t testing.TB, d *Data) uint32 {
	t.Helper()
	in := make([]byte, 0, 64)
	in = binary.BigEndian.AppendUint32(in, uint32(d.Nr))
	in = binary.BigEndian.AppendUint32(in, uint32(d.Arch))
	in = binary.BigEndian.AppendUint32(in, uint32(d.IP))
	in = binary.BigEndian.AppendUint32(in, uint32(d.IP>>32))
	for _, a := range d.Args {
		in = binary.BigEndian.AppendUint32(in, uint32(a))
		in = binary.BigEndian.AppendUint32(in, uint32(a>>32))
	}
	ret, err := m.Run(in)
	if err != nil {
		t.Fatalf("run %+v: %v", d, err)
	}
	return uint32(ret)
}
