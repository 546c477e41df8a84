// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
)

// Bounds of what is read from the workload for one argument.
const (
	maxPath     = 4096 // PATH_MAX, the zero byte included: the kernel takes no longer one
	maxName     = 256  // names that are no paths: attributes, types of file systems, keys
	maxSockaddr = 128  // sizeof(struct sockaddr_storage)
	maxArgv     = 64   // words of an argv
	maxArgvText = audit.MaxValue
	firstChunk  = 256     // of a string: nearly all paths are shorter, and a read costs by the page, not the byte
	arenaSize   = 1 << 10 // at first; it grows to what the session's calls need
)

// decoder renders the arguments of one call at a time. Its values are views of an arena that the next call
// overwrites. It belongs to one session.
type decoder struct {
	mem     memory
	tid     uint32 // 0: registers only
	regs    [6]uint64
	args    [audit.MaxArgs]audit.Arg
	n       int
	arena   []byte
	scratch [maxArgv * 8]byte
	foreign form // of a call that the table does not have
}

func newDecoder(proc *procFS) decoder {
	return decoder{mem: memory{proc: proc, cached: -1, own: -1}, arena: make([]byte, 0, arenaSize)}
}

// form returns how to show a call. What the table does not have (numbers that we do not know, other architectures'
// calls) is shown by its registers.
func (d *decoder) form(data *seccomp.Data) *form {
	t := forms()
	if data.Arch == t.arch && data.Nr >= 0 && int(data.Nr) < len(t.byNr) {
		if f := t.byNr[data.Nr]; f != nil {
			return f
		}
	}
	arch := data.ABI()
	name, known := seccomp.SyscallName(arch, int(data.Nr))
	d.foreign = form{
		name: name, arch: arch.Name(), fields: registers,
		exec: name == "execve" || name == "execveat",
		// Their numbers for set*id and the like are not in our table: any may change who the caller is.
		tracks: arch != t.arch,
	}
	if !known {
		d.foreign.name = "syscall_" + strconv.Itoa(int(data.Nr))
	}
	return &d.foreign
}

// decode renders a call's arguments. tid 0 leaves memory alone. What it peeked is the caller's only if the
// notification is valid afterwards.
func (d *decoder) decode(f *form, data *seccomp.Data, tid uint32) []audit.Arg {
	d.tid, d.regs, d.n, d.arena = tid, data.Args, 0, d.arena[:0]
	for i := range f.fields {
		if i >= len(d.regs) {
			break
		}
		fd := &f.fields[i]
		if fd.render != nil {
			fd.render(d, fd, d.regs[i], i)
		}
	}
	d.mem.close()
	return d.args[:d.n]
}

// add appends an argument. There is always room, as a test sees to it for each form; if not, it is left out.
func (d *decoder) add(name, value string, evidence audit.Evidence) *audit.Arg {
	if d.n == len(d.args) {
		return &audit.Arg{}
	}
	a := &d.args[d.n]
	d.n++
	*a = audit.Arg{Name: name, Value: value, Evidence: evidence}
	return a
}

// text makes what was appended to the arena since start an argument.
func (d *decoder) text(name string, start int, evidence audit.Evidence) *audit.Arg {
	return d.add(name, view(d.arena[start:]), evidence)
}

// unread shows a pointer that could not be followed: by its register, which is exact.
func (d *decoder) unread(name string, addr uint64) {
	if addr == 0 {
		d.add(name, "NULL", audit.EvidenceRegister)
		return
	}
	start := len(d.arena)
	d.arena = appendHex(d.arena, addr)
	if d.tid != 0 {
		d.arena = append(d.arena, " (unreadable)"...)
	}
	d.text(name, start, audit.EvidenceRegister)
}

// cstring appends the string at addr, without its zero byte, to the arena: at most max bytes of it. whole tells
// whether its end was found; n is negative if not even its first byte could be read.
func (d *decoder) cstring(addr uint64, max int) (n int, whole bool) {
	start := len(d.arena)
	for chunk := min(firstChunk, max); ; chunk = min(4*chunk, max-(len(d.arena)-start)) {
		at := len(d.arena)
		d.arena = grow(d.arena, chunk)
		got := d.mem.read(d.tid, addr+uint64(at-start), d.arena[at:at+chunk])
		if end := bytes.IndexByte(d.arena[at:at+got], 0); end >= 0 {
			d.arena = d.arena[:at+end]
			return len(d.arena) - start, true
		}
		d.arena = d.arena[:at+got]
		switch {
		case len(d.arena) == start:
			return -1, false
		case got < chunk || len(d.arena)-start >= max:
			return len(d.arena) - start, false
		}
	}
}

// grow makes room for n more bytes behind b, which it keeps, and returns it with them.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, 2*cap(b)+n), b...)
	}
	return b[:len(b)+n]
}

// peekString shows the string at addr.
func (d *decoder) peekString(name string, addr uint64, max int) {
	start := len(d.arena)
	n, whole := d.cstring(addr, max)
	if n < 0 {
		d.unread(name, addr)
		return
	}
	d.text(name, start, audit.EvidencePeeked).Truncated = !whole
}

// peek reads a structure of up to n bytes into the scratch buffer. What could not be read is zero; got tells how much
// was.
func (d *decoder) peek(addr uint64, n int) (b []byte, got int) {
	b = d.scratch[:min(n, len(d.scratch))]
	clear(b)
	return b, d.mem.read(d.tid, addr, b)
}

// peekArgv shows a vector of strings as a shell would have to be told them: words of harmless characters as they
// are, others in single quotes. So words can be told apart whatever they hold.
func (d *decoder) peekArgv(name string, addr uint64) {
	vector, got := d.peek(addr, maxArgv*8)
	if got < 8 {
		d.unread(name, addr)
		return
	}
	start, cut := len(d.arena), true
	for i := 0; i+8 <= got; i += 8 {
		word := binary.NativeEndian.Uint64(vector[i:])
		if word == 0 {
			cut = false
			break
		}
		if i > 0 {
			d.arena = append(d.arena, ' ')
		}
		if !d.appendWord(word, maxArgvText-(len(d.arena)-start)) {
			break
		}
	}
	d.text(name, start, audit.EvidencePeeked).Truncated = cut
}

// appendWord appends one quoted word of at most room bytes, quotes included. It returns false if that is not all.
func (d *decoder) appendWord(addr uint64, room int) bool {
	if room < 3 {
		return false
	}
	start := len(d.arena)
	n, whole := d.cstring(addr, room)
	if n < 0 {
		d.arena = append(d.arena, '?')
		return false
	}
	if whole && harmless(d.arena[start:]) {
		return true
	}
	// Quoted behind itself, then moved to its place.
	raw, quoted := start, len(d.arena)
	d.arena = append(d.arena, '\'')
	for ; raw < quoted; raw++ {
		b := d.arena[raw]
		size := 1
		if b == '\'' {
			size = 4
		}
		if len(d.arena)-quoted+size+1 > room {
			whole = false
			break
		}
		if b == '\'' {
			d.arena = append(d.arena, `'\''`...)
		} else {
			d.arena = append(d.arena, b)
		}
	}
	d.arena = append(d.arena, '\'')
	d.arena = d.arena[:start+copy(d.arena[start:], d.arena[quoted:])]
	return whole
}

func harmless(word []byte) bool {
	for _, b := range word {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		case bytes.IndexByte([]byte("_-./=:,@%+^"), b) >= 0:
		default:
			return false
		}
	}
	return len(word) > 0
}

func appendHex(dst []byte, v uint64) []byte {
	return strconv.AppendUint(append(dst, "0x"...), v, 16)
}

func decimal(v uint64) string { return strconv.FormatUint(v, 10) }
