// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel's own numbers, as far as Go has them.
func TestConstants(t *testing.T) {
	want := map[string]uint64{
		"AF_UNSPEC": unix.AF_UNSPEC, "AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK,
		"AF_PACKET": unix.AF_PACKET, "AF_RDS": unix.AF_RDS, "AF_CAN": unix.AF_CAN, "AF_TIPC": unix.AF_TIPC, "AF_BLUETOOTH": unix.AF_BLUETOOTH,
		"AF_ALG": unix.AF_ALG, "AF_VSOCK": unix.AF_VSOCK, "AF_XDP": unix.AF_XDP,
		"SOCK_STREAM": unix.SOCK_STREAM, "SOCK_DGRAM": unix.SOCK_DGRAM, "SOCK_RAW": unix.SOCK_RAW, "SOCK_SEQPACKET": unix.SOCK_SEQPACKET,
		"CLONE_NEWTIME": unix.CLONE_NEWTIME, "CLONE_VM": unix.CLONE_VM, "CLONE_THREAD": unix.CLONE_THREAD, "CLONE_NEWNS": unix.CLONE_NEWNS,
		"CLONE_NEWCGROUP": unix.CLONE_NEWCGROUP, "CLONE_NEWUTS": unix.CLONE_NEWUTS, "CLONE_NEWIPC": unix.CLONE_NEWIPC,
		"CLONE_NEWUSER": unix.CLONE_NEWUSER, "CLONE_NEWPID": unix.CLONE_NEWPID, "CLONE_NEWNET": unix.CLONE_NEWNET,
		"O_ACCMODE": unix.O_ACCMODE, "O_RDONLY": unix.O_RDONLY, "O_WRONLY": unix.O_WRONLY, "O_RDWR": unix.O_RDWR, "O_CREAT": unix.O_CREAT,
		"O_TRUNC": unix.O_TRUNC, "O_APPEND": unix.O_APPEND,
		"S_IFMT": unix.S_IFMT, "S_IFSOCK": unix.S_IFSOCK, "S_IFREG": unix.S_IFREG, "S_IFBLK": unix.S_IFBLK, "S_IFCHR": unix.S_IFCHR,
		"S_IFIFO": unix.S_IFIFO, "S_ISUID": unix.S_ISUID, "S_ISGID": unix.S_ISGID,
		"PROT_EXEC": unix.PROT_EXEC, "PROT_WRITE": unix.PROT_WRITE, "TIOCSTI": unix.TIOCSTI, "TIOCLINUX": 0x541c,
		"PR_SET_NAME": unix.PR_SET_NAME, "PR_SET_SECCOMP": unix.PR_SET_SECCOMP, "PR_SET_MM": unix.PR_SET_MM,
		"PR_SET_NO_NEW_PRIVS": unix.PR_SET_NO_NEW_PRIVS, "PR_SET_DUMPABLE": unix.PR_SET_DUMPABLE,
		"PER_LINUX": 0, "PER_LINUX32": 8, "UNAME26": 0x20000, "ADDR_NO_RANDOMIZE": 0x40000, "READ_IMPLIES_EXEC": 0x400000,
		"SIGKILL": uint64(unix.SIGKILL), "SIGSTOP": uint64(unix.SIGSTOP), "SIGTERM": uint64(unix.SIGTERM),
	}
	for _, c := range constants {
		if v, ok := want[c.Name]; !ok || v != c.Value {
			t.Errorf("%s is %#x, want %#x", c.Name, c.Value, v)
		}
	}
	if len(constants) != len(want) {
		t.Errorf("%d constants, %d checked", len(constants), len(want))
	}
}

func TestErrnoNames(t *testing.T) {
	for name, want := range map[string]uint16{
		"EPERM": 1, "ENOSYS": 38, "EAFNOSUPPORT": 97, "EWOULDBLOCK": 11, "ENOTSUP": 95, "EHWPOISON": 133, "": 0, "EFOO": 0, "1": 0,
	} {
		if got := errnoByName(name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
	if ErrnoName(0) != "EPERM" || ErrnoName(4000) != "4000" {
		t.Error(ErrnoName(0), ErrnoName(4000))
	}
}
