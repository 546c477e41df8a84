// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
)

// renderSockaddr shows the address at a pointer, whose length is in the register after it.
func renderSockaddr(d *decoder, f *field, value uint64, i int) {
	if i+1 < len(d.regs) {
		d.peekSockaddr(f.name, value, d.regs[i+1])
	}
}

// renderSendAddr leaves an address out that need not be given.
func renderSendAddr(d *decoder, f *field, value uint64, i int) {
	if value != 0 {
		renderSockaddr(d, f, value, i)
	}
}

// renderMsghdr shows the destination in a struct msghdr, or in the first of a vector of struct mmsghdr, which begins
// with one: name is its first member, namelen the second.
func renderMsghdr(d *decoder, f *field, value uint64, _ int) {
	header, got := d.peek(value, 16)
	if got < 12 {
		d.unread(f.name, value)
		return
	}
	if name := binary.NativeEndian.Uint64(header); name != 0 {
		d.peekSockaddr("addr", name, uint64(binary.NativeEndian.Uint32(header[8:])))
	}
}

func (d *decoder) peekSockaddr(name string, addr, size uint64) {
	size = uint64(uint32(size)) // a C int; what is too long is refused by the kernel
	raw, got := d.peek(addr, int(min(size, maxSockaddr)))
	if got < 2 {
		d.unread(name, addr)
		return
	}
	start := len(d.arena)
	d.arena = appendSockaddr(d.arena, raw[:got])
	d.text(name, start, audit.EvidencePeeked).Truncated = uint64(got) < size
}

// appendSockaddr shows a socket address of at least two bytes, as far as it goes.
func appendSockaddr(dst, raw []byte) []byte {
	be := binary.BigEndian
	ne := binary.NativeEndian
	family := ne.Uint16(raw)
	switch {
	case family == unix.AF_INET && len(raw) >= 8:
		a := netip.AddrFrom4([4]byte(raw[4:8]))
		return netip.AddrPortFrom(a, be.Uint16(raw[2:])).AppendTo(dst)
	case family == unix.AF_INET6 && len(raw) >= 24:
		dst = append(dst, '[')
		dst = netip.AddrFrom16([16]byte(raw[8:24])).AppendTo(dst)
		if len(raw) >= 28 && ne.Uint32(raw[24:]) != 0 {
			dst = strconv.AppendUint(append(dst, '%'), uint64(ne.Uint32(raw[24:])), 10)
		}
		return strconv.AppendUint(append(dst, "]:"...), uint64(be.Uint16(raw[2:])), 10)
	case family == unix.AF_UNIX && len(raw) == 2:
		return append(dst, "unix:"...)
	case family == unix.AF_UNIX && raw[2] == 0: // abstract: all bytes count
		return append(append(dst, "unix-abstract:"...), raw[3:]...)
	case family == unix.AF_UNIX:
		path, _, _ := bytes.Cut(raw[2:], []byte{0})
		return append(append(dst, "unix:"...), path...)
	case family == unix.AF_NETLINK && len(raw) >= 12:
		dst = strconv.AppendUint(append(dst, "netlink:pid="...), uint64(ne.Uint32(raw[4:])), 10)
		return appendHex(append(dst, ",groups="...), uint64(ne.Uint32(raw[8:])))
	case family == unix.AF_VSOCK && len(raw) >= 12:
		dst = strconv.AppendUint(append(dst, "vsock:"...), uint64(ne.Uint32(raw[8:])), 10)
		return strconv.AppendUint(append(dst, ':'), uint64(ne.Uint32(raw[4:])), 10)
	case family == unix.AF_PACKET && len(raw) >= 8:
		dst = strconv.AppendInt(append(dst, "packet:ifindex="...), int64(int32(ne.Uint32(raw[4:]))), 10)
		return appendHex(append(dst, ",protocol="...), uint64(be.Uint16(raw[2:])))
	}
	dst = vocabulary()["domain"].append(dst, uint64(family))
	dst = append(dst, ':')
	for _, b := range raw[2:] {
		const digits = "0123456789abcdef"
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}
