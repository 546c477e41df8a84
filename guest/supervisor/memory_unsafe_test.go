// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
)

// ownMemory decodes what stands in this process's memory: reading ourselves needs no privilege and no other process.
type ownMemory struct{ pins runtime.Pinner }

func (m *ownMemory) addr(b []byte) uint64 {
	p := unsafe.SliceData(b)
	m.pins.Pin(p)
	return uint64(uintptr(unsafe.Pointer(p)))
}

func (m *ownMemory) argv(words []string) audit.Arg {
	defer m.pins.Unpin()
	vector := make([]byte, 8*(len(words)+1))
	for i, w := range words {
		binary.NativeEndian.PutUint64(vector[8*i:], m.addr(append([]byte(w), 0)))
	}
	d := newDecoder(&procFS{})
	d.tid = uint32(os.Getpid())
	d.peekArgv("argv", m.addr(vector))
	return d.args[0]
}

// FuzzDecode gives every form hostile registers that partly point into a hostile page, followed by nothing: whatever
// is there, decoding must not fail, and must stay within its bounds.
func FuzzDecode(f *testing.F) {
	page, err := unix.Mmap(-1, 0, 3*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		f.Fatal(err)
	}
	if err := unix.Mprotect(page[2*pageSize:], unix.PROT_NONE); err != nil {
		f.Fatal(err)
	}
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(page))))
	proc := &procFS{}
	d := newDecoder(proc)
	f.Add(uint16(unix.SYS_EXECVE), uint16(10), uint16(100), uint64(0), []byte("/bin/sh\x00"), false)
	f.Add(uint16(unix.SYS_OPENAT), uint16(0), uint16(8191), uint64(1<<63), []byte("'''"), true)
	f.Add(uint16(unix.SYS_CONNECT), uint16(0), uint16(8180), uint64(16), []byte("\x02\x00\x00\x50"), false)
	f.Add(uint16(unix.SYS_SENDMSG), uint16(0), uint16(8176), uint64(1<<64-1), []byte{1}, false)
	f.Add(uint16(unix.SYS_PRCTL), uint16(15), uint16(0), uint64(15), []byte("name"), false)
	for nr := range uint16(formLimit) {
		f.Add(nr, nr, 8192-nr, uint64(nr)<<30, []byte{byte(nr), 0, 255}, nr%2 == 0)
	}
	f.Fuzz(func(t *testing.T, nr, at1, at2 uint16, raw uint64, content []byte, pointers bool) {
		memory := page[:2*pageSize]
		for i := range memory {
			if len(content) > 0 {
				memory[i] = content[i%len(content)]
			}
		}
		if pointers { // a vector of pointers into the page
			for i := 0; i+8 <= len(memory); i += 8 {
				binary.NativeEndian.PutUint64(memory[i:], base+uint64(at1)%(2*pageSize)+uint64(i))
			}
		}
		p1, p2 := base+uint64(at1)%(2*pageSize), base+uint64(at2)%(3*pageSize)
		data := seccomp.Data{Nr: int32(nr), Arch: seccomp.NativeArch(), Args: [6]uint64{p1, p2, raw, p1, p2, raw}}
		for _, args := range [][6]uint64{data.Args, {raw, p1, p2, raw, p1, p2}, {p2, raw, p1, p2, raw, p1}} {
			data.Args = args
			got := d.decode(d.form(&data), &data, uint32(os.Getpid()))
			if len(got) > audit.MaxArgs {
				t.Fatalf("%d arguments", len(got))
			}
			for _, a := range got {
				if a.Name == "" || len(a.Value) > audit.MaxValue || a.Evidence != audit.EvidencePeeked && a.Evidence != audit.EvidenceRegister {
					t.Fatalf("argument %q of %d bytes, evidence %q", a.Name, len(a.Value), a.Evidence)
				}
			}
			if cap(d.arena) > 64<<10 {
				t.Fatalf("the arena has %d bytes", cap(d.arena))
			}
		}
	})
}

func FuzzSockaddr(f *testing.F) {
	for _, family := range []byte{0, 1, 2, 10, 16, 17, 40, 99} {
		for _, n := range []int{2, 3, 7, 8, 12, 16, 28, 110, 128} {
			raw := make([]byte, n)
			raw[0], raw[n-1] = family, 7
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < 2 || len(raw) > maxSockaddr {
			return
		}
		if got := appendSockaddr(nil, raw); len(got) == 0 || len(got) > 400 {
			t.Fatalf("% x: %q", raw, got)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("Name:\ta\nTgid:\t12\nPPid:\t1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"))
	f.Add([]byte("Name:\t\\n\\\\\nTgid:\nUid:"))
	f.Fuzz(func(t *testing.T, status []byte) {
		var id identity
		if parseStatus(status, &id) && id.pid == 0 {
			t.Fatal("an identity without a process")
		}
	})
}
