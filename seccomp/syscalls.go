// SPDX-License-Identifier: Apache-2.0

package seccomp

import "sort"

//go:generate go run ./internal/gentables

const (
	noNumber   = 0xffff
	armBase    = 0xf0000 // the ARM private calls start here
	armEncoded = 0xf000  // and stand so in the tables
)

// tables returns the number of each name and the names in order of number, both as indexes into the name list.
func (a Arch) tables() (numbers *[syscallCount]uint16, byNumber []uint16) {
	switch a {
	case ArchAMD64:
		return &numbersAmd64, byNumberAmd64[:]
	case Arch386:
		return &numbers386, byNumber386[:]
	case ArchX32:
		return &numbersX32, byNumberX32[:]
	case ArchARM64:
		return &numbersArm64, byNumberArm64[:]
	case ArchARM:
		return &numbersArm, byNumberArm[:]
	}
	return nil, nil
}

func nameAt(i int) string {
	start := 0
	if i > 0 {
		start = int(syscallEnds[i-1])
	}
	return syscallNames[start:syscallEnds[i]]
}

// nameIndex returns the index of a name in the list, or -1.
func nameIndex(name string) int {
	i := sort.Search(syscallCount, func(i int) bool { return nameAt(i) >= name })
	if i < syscallCount && nameAt(i) == name {
		return i
	}
	return -1
}

func decodeNumber(a Arch, n uint16) int {
	switch {
	case n == noNumber:
		return -1
	case n >= armEncoded:
		return int(n) - armEncoded + armBase
	case a == ArchX32:
		return int(n) | x32Bit
	}
	return int(n)
}

// numberAt returns the number of the i-th name on a (for x32 with its bit), or -1.
func numberAt(a Arch, i int) int {
	numbers, _ := a.tables()
	if numbers == nil || i < 0 {
		return -1
	}
	return decodeNumber(a, numbers[i])
}

// SyscallNumber returns the number of a call on a; for x32 with bit 30 set. False: a has no such call.
func SyscallNumber(a Arch, name string) (int, bool) {
	n := numberAt(a, nameIndex(name))
	return n, n >= 0
}

// SyscallName returns the name of a call as the kernel reports it: for ArchAMD64 a number with bit 30 set is an
// x32 call. False: no such call on a (or newer than the tables).
func SyscallName(a Arch, nr int) (string, bool) {
	if a == ArchAMD64 && nr&x32Bit != 0 && nr >= 0 {
		a = ArchX32
	}
	numbers, byNumber := a.tables()
	if numbers == nil {
		return "", false
	}
	i := sort.Search(len(byNumber), func(i int) bool { return decodeNumber(a, numbers[byNumber[i]]) >= nr })
	if i < len(byNumber) && decodeNumber(a, numbers[byNumber[i]]) == nr {
		return nameAt(int(byNumber[i])), true
	}
	return "", false
}

// KnownSyscall says whether any architecture that Linux has or had knows a call of this name. One that is known
// but absent on the policy's architecture (s390's, say) is fine in a profile and has no effect.
func KnownSyscall(name string) bool { return nameIndex(name) >= 0 }

// EachSyscall calls f for every call of a in order of number, until f returns false.
func EachSyscall(a Arch, f func(nr int, name string) bool) {
	numbers, byNumber := a.tables()
	for _, i := range byNumber {
		if !f(decodeNumber(a, numbers[i]), nameAt(int(i))) {
			return
		}
	}
}

// reads32 says that a 64-bit kernel reads argument arg of the named call as a 32-bit integer and ignores the
// upper half of its register: a condition that looked at that half could be evaded by filling it.
func reads32(a Arch, name int, arg uint8) bool {
	return a.narrow() || name >= 0 && syscallW32[name]&(1<<arg) != 0
}

// SuggestSyscall returns the known name nearest to a misspelt one, or "" if none is near.
func SuggestSyscall(name string) string {
	if name == "" || len(name) > 64 {
		return ""
	}
	best, bestDist := "", 1+(len(name)+2)/4
	for i := range syscallCount {
		k := nameAt(i)
		if d := len(k) - len(name); d >= bestDist || -d >= bestDist {
			continue
		}
		if d := editDistance(name, k); d < bestDist {
			best, bestDist = k, d
		}
	}
	return best
}

// editDistance is Damerau's restricted distance: insert, delete, replace, swap of neighbours.
func editDistance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
