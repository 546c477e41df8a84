// SPDX-License-Identifier: Apache-2.0

// Package index tells of a complete segment of a stream, without reading it, what none of its records holds: no record of that time,
// of that class, with that path. What it tells is certain; what it does not exclude may be there or not.
//
// An index is made by whoever reads a segment whole, and kept in a directory of the reader's own, never beside the segments: who looks
// at a stream does not change it, and what somebody else says of a stream hides nothing from who reads it.
package index

import (
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit/record"
)

// Field is what a record can be looked for by.
type Field byte

// The fields. Strings stand for themselves but for those that say otherwise.
const (
	Kind Field = iota + 1
	Class
	Verdict
	Syscall
	Profile
	Exec      // the first ExecChars of the id of an exec session
	Path      // as an argument, or as path.Clean makes it
	Directory // above one of these: its first Depth names at most
	Address   // of a socket, as netip writes it
	Network   // around such an address: 8, 16 or 24 bits of IPv4, 32, 48 or 64 of IPv6
	Port      // in decimal
	Family    // of any other socket's address: what stands before its first colon
)

// ExecChars is how much of an exec session's id is indexed.
const ExecChars = 8

// Depth is how many names of a directory's path are indexed.
const Depth = 3

// Bytes of the filters. They come to a five-thousandth of a segment of the default size.
const (
	wordBytes    = 1 << 10
	execBytes    = 1 << 10
	pathBytes    = 8 << 10
	addressBytes = 2 << 10
)

// Summary is what is known of a segment's records. Its zero value knows of no record. Adding is not safe for concurrent use.
type Summary struct {
	from, to  int64 // seconds since 1970; to is past all of them
	words     [wordBytes]byte
	execs     [execBytes]byte
	paths     [pathBytes]byte
	addresses [addressBytes]byte
}

// Add takes a record in.
func (s *Summary) Add(r *record.Record) {
	e := &r.Event
	from, to := e.Time.Unix(), e.Time.Unix()+1
	if c := e.Syscall; c != nil && c.Count > 1 {
		to = max(to, c.Until.Unix()+1)
	}
	if s.to == 0 && s.from == 0 {
		s.from, s.to = from, to
	}
	s.from, s.to = min(s.from, from), max(s.to, to)
	s.add(Kind, string(e.Kind))
	s.add(Profile, r.Identity.Profile)
	if e.Exec != "" {
		s.add(Exec, e.Exec[:min(len(e.Exec), ExecChars)])
	}
	if c := e.Syscall; c != nil {
		s.add(Class, c.Class)
		s.add(Verdict, string(c.Verdict))
		s.add(Syscall, c.Syscall)
		for i := range c.Args {
			switch a := &c.Args[i]; {
			case a.IsPath():
				s.addPath(a.Value)
			case a.IsAddress():
				s.addAddress(a.Value)
			}
		}
	}
}

func (s *Summary) addPath(p string) {
	s.addOnePath(p)
	if clean := path.Clean(p); clean != p {
		s.addOnePath(clean)
	}
}

func (s *Summary) addOnePath(p string) {
	s.add(Path, p)
	for _, d := range Directories(p) {
		s.add(Directory, d)
	}
}

// Directories returns the directories above a path that are indexed, the deepest one last.
func Directories(p string) []string {
	var at [Depth]string
	n := 0
	for i := 1; i < len(p) && n < Depth; i++ {
		if p[i] == '/' {
			at[n] = p[:i]
			n++
		}
	}
	return at[:n:n]
}

func (s *Summary) addAddress(text string) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		family, _, _ := strings.Cut(text, ":")
		s.add(Family, family)
		return
	}
	ip := at.Addr().Unmap().WithZone("")
	s.add(Address, ip.String())
	s.add(Port, decimal(at.Port()))
	for _, bits := range networkBits(ip) {
		network, _ := ip.Prefix(bits)
		s.add(Network, network.String())
	}
}

func networkBits(ip netip.Addr) [3]int {
	if ip.Is4() {
		return [3]int{8, 16, 24}
	}
	return [3]int{32, 48, 64}
}

// HasTime tells whether there can be a record of the time from since on, and before until; a zero time is no bound.
func (s *Summary) HasTime(since, until time.Time) bool {
	return (since.IsZero() || s.to >= since.Unix()) && (until.IsZero() || s.from <= until.Unix())
}

// Has tells whether there can be a record with that value of a field.
func (s *Summary) Has(f Field, value string) bool {
	bits := s.filter(f)
	for _, at := range places(hash(f, value), len(bits)) {
		if bits[at/8]&(1<<(at%8)) == 0 {
			return false
		}
	}
	return true
}

// HasNetwork tells whether there can be a record with the address of a socket in a network.
func (s *Summary) HasNetwork(p netip.Prefix) bool {
	if p.IsSingleIP() {
		return s.Has(Address, p.Addr().String())
	}
	bits := networkBits(p.Addr())
	for i := len(bits) - 1; i >= 0; i-- {
		if bits[i] <= p.Bits() {
			network, _ := p.Addr().Prefix(bits[i])
			return s.Has(Network, network.String())
		}
	}
	return true
}

// HasPort tells whether there can be a record with the address of a socket with that port.
func (s *Summary) HasPort(n uint16) bool { return s.Has(Port, decimal(n)) }

func decimal(n uint16) string { return strconv.FormatUint(uint64(n), 10) }

func (s *Summary) add(f Field, value string) {
	bits := s.filter(f)
	for _, at := range places(hash(f, value), len(bits)) {
		bits[at/8] |= 1 << (at % 8)
	}
}

func (s *Summary) filter(f Field) []byte {
	switch f {
	case Exec:
		return s.execs[:]
	case Path, Directory:
		return s.paths[:]
	case Address, Network, Port, Family:
		return s.addresses[:]
	}
	return s.words[:]
}

// hash is 64-bit FNV-1a.
func hash(f Field, value string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := (offset ^ uint64(f)) * prime
	for i := 0; i < len(value); i++ {
		h = (h ^ uint64(value[i])) * prime
	}
	return h
}

// places are the bits that stand for a hash in a Bloom filter of so many bytes, a power of two.
func places(h uint64, size int) [4]uint32 {
	h ^= h >> 32 // FNV's low bits hang on the low bits of what it hashes
	a, b := uint32(h), uint32(h>>32)|1
	mask := uint32(size*8 - 1)
	return [4]uint32{a & mask, (a + b) & mask, (a + 2*b) & mask, (a + 3*b) & mask}
}
