// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
)

// renderers show a register, or what it points at. Each appends at most one argument, but for the structures, whose
// members follow each other.
var renderers map[string]func(d *decoder, f *field, value uint64, i int)

func init() { // not in the declaration: newField would make it a cycle
	renderers = map[string]func(d *decoder, f *field, value uint64, i int){
		"int": renderInt, "int64": renderInt64, "uint": renderUint, "hex": renderHex, "id": renderID,
		"mode": renderMode, "open-mode": renderOpenMode, "at": renderDirFD, "signal": renderSignal,
		"clone": renderClone, "socktype": renderSocketType, "prctl": renderPrctl,
		"path": renderPath, "name": renderName, "argv": renderArgv, "sockaddr": renderSockaddr,
		"sendaddr": renderSendAddr, "msghdr": renderMsghdr, "mmsghdr": renderMsghdr,
		"open-how": renderOpenHow, "clone-args": renderCloneArgs, "capset": renderCapset,
	}
}

// renderInt shows a C int: the kernel looks at the low half of the register only.
func renderInt(d *decoder, f *field, value uint64, _ int) {
	start := len(d.arena)
	d.arena = strconv.AppendInt(d.arena, int64(int32(value)), 10)
	d.text(f.name, start, audit.EvidenceRegister)
}

func renderInt64(d *decoder, f *field, value uint64, _ int) {
	start := len(d.arena)
	d.arena = strconv.AppendInt(d.arena, int64(value), 10)
	d.text(f.name, start, audit.EvidenceRegister)
}

func renderUint(d *decoder, f *field, value uint64, _ int) {
	start := len(d.arena)
	d.arena = strconv.AppendUint(d.arena, value, 10)
	d.text(f.name, start, audit.EvidenceRegister)
}

func renderHex(d *decoder, f *field, value uint64, _ int) {
	start := len(d.arena)
	d.arena = appendHex(d.arena, value)
	d.text(f.name, start, audit.EvidenceRegister)
}

// renderID shows a user or group id; the highest means "leave as it is".
func renderID(d *decoder, f *field, value uint64, i int) {
	if uint32(value) == 1<<32-1 {
		d.add(f.name, "-1", audit.EvidenceRegister)
		return
	}
	renderUint(d, f, uint64(uint32(value)), i)
}

func renderMode(d *decoder, f *field, value uint64, _ int) {
	start := len(d.arena)
	d.arena = strconv.AppendUint(append(d.arena, '0'), uint64(uint32(value)), 8)
	d.text(f.name, start, audit.EvidenceRegister)
}

// renderOpenMode shows the mode only if the flags, in the register before it, make the kernel look at it.
func renderOpenMode(d *decoder, f *field, value uint64, i int) {
	if i > 0 && d.regs[i-1]&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		renderMode(d, f, value, i)
	}
}

func renderDirFD(d *decoder, f *field, value uint64, i int) {
	if int32(value) == unix.AT_FDCWD {
		d.add(f.name, "AT_FDCWD", audit.EvidenceRegister)
		return
	}
	renderInt(d, f, value, i)
}

func renderSignal(d *decoder, f *field, value uint64, i int) {
	if name := unix.SignalName(unix.Signal(int32(value))); name != "" {
		d.add(f.name, name, audit.EvidenceRegister)
		return
	}
	renderInt(d, f, value, i)
}

// renderTerms shows flags, or one of several choices, by name.
func renderTerms(d *decoder, f *field, value uint64, _ int) {
	if !f.terms.long {
		value = uint64(uint32(value))
	}
	d.words(f.name, f.terms, value, audit.EvidenceRegister)
}

func (d *decoder) words(name string, t *terms, value uint64, evidence audit.Evidence) {
	start := len(d.arena)
	d.arena = t.append(d.arena, value)
	d.text(name, start, evidence)
}

// renderClone shows clone's flags; their low byte is the signal for the parent.
func renderClone(d *decoder, f *field, value uint64, i int) {
	const csignal = 0xff
	start := len(d.arena)
	if flags := value &^ csignal; flags != 0 || value == 0 {
		d.arena = vocabulary()["unshare"].append(d.arena, flags)
		if value&csignal != 0 {
			d.arena = append(d.arena, '|')
		}
	}
	if sig := value & csignal; sig != 0 {
		if name := unix.SignalName(unix.Signal(sig)); name != "" {
			d.arena = append(d.arena, name...)
		} else {
			d.arena = appendHex(d.arena, sig)
		}
	}
	d.text(f.name, start, audit.EvidenceRegister)
}

// renderSocketType shows a type and the flags that share its register.
func renderSocketType(d *decoder, f *field, value uint64, _ int) {
	start := len(d.arena)
	value = uint64(uint32(value))
	kind := value & 0xf // SOCK_TYPE_MASK
	if kind != 0 {
		d.arena = vocabulary()["socket-kind"].append(d.arena, kind)
	}
	if flags := value &^ 0xf; flags != 0 || kind == 0 {
		if kind != 0 {
			d.arena = append(d.arena, '|')
		}
		d.arena = vocabulary()["socket-flags"].append(d.arena, flags)
	}
	d.text(f.name, start, audit.EvidenceRegister)
}

// renderPrctl shows the option; with PR_SET_NAME the name follows in place of the pointer, by its own field.
func renderPrctl(d *decoder, f *field, value uint64, _ int) {
	d.words(f.name, vocabulary()["prctl-option"], uint64(uint32(value)), audit.EvidenceRegister)
	if uint32(value) == unix.PR_SET_NAME {
		d.peekString("name", d.regs[1], 16) // TASK_COMM_LEN
	}
}

func renderPath(d *decoder, f *field, value uint64, _ int) { d.peekString(f.name, value, maxPath) }
func renderName(d *decoder, f *field, value uint64, _ int) { d.peekString(f.name, value, maxName) }
func renderArgv(d *decoder, f *field, value uint64, _ int) { d.peekArgv(f.name, value) }

// renderOpenHow shows struct open_how of openat2(2): flags, mode, resolve, 64 bits each.
func renderOpenHow(d *decoder, f *field, value uint64, _ int) {
	how, got := d.peek(value, 24)
	if got < 24 {
		d.unread(f.name, value)
		return
	}
	flags := binary.NativeEndian.Uint64(how[0:])
	d.words("flags", vocabulary()["open"], flags, audit.EvidencePeeked)
	if flags&unix.O_CREAT != 0 {
		start := len(d.arena)
		d.arena = strconv.AppendUint(append(d.arena, '0'), binary.NativeEndian.Uint64(how[8:]), 8)
		d.text("mode", start, audit.EvidencePeeked)
	}
	d.words("resolve", vocabulary()["resolve"], binary.NativeEndian.Uint64(how[16:]), audit.EvidencePeeked)
}

// renderCloneArgs shows struct clone_args of clone3(2): flags is its first member, exit_signal its fifth.
func renderCloneArgs(d *decoder, f *field, value uint64, _ int) {
	args, got := d.peek(value, 40)
	if got < 40 {
		d.unread(f.name, value)
		return
	}
	d.words("flags", vocabulary()["unshare"], binary.NativeEndian.Uint64(args[0:]), audit.EvidencePeeked)
	signal := binary.NativeEndian.Uint64(args[32:])
	name := ""
	if signal < 1<<16 {
		name = unix.SignalName(unix.Signal(signal))
	}
	if name == "" {
		start := len(d.arena)
		d.arena = strconv.AppendUint(d.arena, signal, 10)
		name = view(d.arena[start:])
	}
	d.add("exit_signal", name, audit.EvidencePeeked)
}

// renderCapset shows the sets of capset(2), version 3: two times effective, permitted, inheritable, low halves first.
func renderCapset(d *decoder, f *field, value uint64, _ int) {
	sets, got := d.peek(value, 24)
	if got < 24 {
		d.unread(f.name, value)
		return
	}
	for i, name := range [...]string{"effective", "permitted", "inheritable"} {
		start := len(d.arena)
		low, high := binary.NativeEndian.Uint32(sets[4*i:]), binary.NativeEndian.Uint32(sets[12+4*i:])
		d.arena = appendHex(d.arena, uint64(high)<<32|uint64(low))
		d.text(name, start, audit.EvidencePeeked)
	}
}
