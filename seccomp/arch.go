// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"runtime"
	"strings"
)

// Arch is a system call ABI: the AUDIT_ARCH_* value of <linux/audit.h> that the kernel puts into struct
// seccomp_data, and for x32, which the kernel does not tell apart there, libseccomp's token.
type Arch uint32

// The ABIs that this package has system call tables for.
const (
	ArchAMD64 Arch = 0xc000003e
	Arch386   Arch = 0x40000003
	ArchX32   Arch = 0x4000003e // in seccomp_data: ArchAMD64, and bit 30 set in the number
	ArchARM64 Arch = 0xc00000b7
	ArchARM   Arch = 0x40000028
)

// x32Bit marks an x32 call: __X32_SYSCALL_BIT of <asm/unistd.h>.
const x32Bit = 0x40000000

// ArchInfo describes one ABI of the vocabulary.
type ArchInfo struct {
	Arch   Arch
	Name   string // the OCI name, "SCMP_ARCH_X86_64"
	Go     string // the short name, "amd64"
	Native bool   // a policy can be compiled for it; the others are foreign ABIs of those
	Doc    string
}

// KnownArches returns every ABI that a policy can name.
func KnownArches() []ArchInfo {
	return []ArchInfo{
		{ArchAMD64, "SCMP_ARCH_X86_64", "amd64", true, "x86-64"},
		{Arch386, "SCMP_ARCH_X86", "386", false, "32-bit x86, on an x86-64 kernel: `int 0x80` and 32-bit programs"},
		{ArchX32, "SCMP_ARCH_X32", "x32", false, "x32, on an x86-64 kernel: bit 30 set in the call number"},
		{ArchARM64, "SCMP_ARCH_AARCH64", "arm64", true, "64-bit ARM"},
		{ArchARM, "SCMP_ARCH_ARM", "arm", false, "32-bit ARM (EABI), on a 64-bit ARM kernel"},
	}
}

// NativeArch returns the ABI of the machine that this process runs on, or zero where Metsuke has no tables.
func NativeArch() Arch {
	switch runtime.GOARCH {
	case "amd64":
		return ArchAMD64
	case "arm64":
		return ArchARM64
	}
	return 0
}

// Name returns the OCI name, "SCMP_ARCH_X86_64", or the number of an ABI that is not known.
func (a Arch) Name() string {
	for _, k := range KnownArches() {
		if k.Arch == a {
			return k.Name
		}
	}
	return fmt.Sprintf("%#x", uint32(a))
}

// ParseArch takes an OCI name ("SCMP_ARCH_X86") or a short one ("386").
func ParseArch(name string) (Arch, error) {
	for _, k := range KnownArches() {
		if k.Name == name || k.Go == name {
			return k.Arch, nil
		}
	}
	return 0, fmt.Errorf("unknown architecture %q: known are %s", name, strings.Join(archNames(), ", "))
}

func archNames() []string {
	var names []string
	for _, k := range KnownArches() {
		names = append(names, k.Name)
	}
	return names
}

// audit returns the value that the kernel reports for a.
func (a Arch) audit() Arch {
	if a == ArchX32 {
		return ArchAMD64
	}
	return a
}

// narrow says that a has 32-bit registers: the kernel takes the low half of each argument only. What stands in
// the upper half of seccomp_data is then whatever a 64-bit caller of `int 0x80` left in its registers.
func (a Arch) narrow() bool { return a == Arch386 || a == ArchARM }

// family returns the ABIs that a kernel of the native ABI a can run, a first; nil if a is not a native one.
func (a Arch) family() []Arch {
	switch a {
	case ArchAMD64:
		return []Arch{ArchAMD64, ArchX32, Arch386}
	case ArchARM64:
		return []Arch{ArchARM64, ArchARM}
	}
	return nil
}
