// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"maps"
	"slices"
)

// Constant is a name that a condition's value and mask may use instead of a number.
type Constant struct {
	Name  string
	Value uint64
	Of    string // what it is used with
}

// constants have one value on every architecture that a profile can be for; those that differ (O_DIRECTORY, for
// one) are left out. Source: the uapi headers of Linux 7.1.
var constants = []Constant{
	{"AF_UNSPEC", 0, "socket: domain"}, {"AF_UNIX", 1, "socket: domain"}, {"AF_INET", 2, "socket: domain"},
	{"AF_INET6", 10, "socket: domain"}, {"AF_NETLINK", 16, "socket: domain"}, {"AF_PACKET", 17, "socket: domain"},
	{"AF_RDS", 21, "socket: domain"}, {"AF_CAN", 29, "socket: domain"}, {"AF_TIPC", 30, "socket: domain"},
	{"AF_BLUETOOTH", 31, "socket: domain"}, {"AF_ALG", 38, "socket: domain"}, {"AF_VSOCK", 40, "socket: domain"},
	{"AF_XDP", 44, "socket: domain"},
	{"SOCK_STREAM", 1, "socket: type"}, {"SOCK_DGRAM", 2, "socket: type"}, {"SOCK_RAW", 3, "socket: type"},
	{"SOCK_SEQPACKET", 5, "socket: type"},
	{"CLONE_NEWTIME", 0x80, "unshare, setns"}, {"CLONE_VM", 0x100, "clone"}, {"CLONE_THREAD", 0x10000, "clone"},
	{"CLONE_NEWNS", 0x20000, "clone, unshare, setns"}, {"CLONE_NEWCGROUP", 0x2000000, "clone, unshare, setns"},
	{"CLONE_NEWUTS", 0x4000000, "clone, unshare, setns"}, {"CLONE_NEWIPC", 0x8000000, "clone, unshare, setns"},
	{"CLONE_NEWUSER", 0x10000000, "clone, unshare, setns"}, {"CLONE_NEWPID", 0x20000000, "clone, unshare, setns"},
	{"CLONE_NEWNET", 0x40000000, "clone, unshare, setns"},
	{"O_ACCMODE", 3, "open, openat: flags"}, {"O_RDONLY", 0, "open, openat: flags"}, {"O_WRONLY", 1, "open, openat: flags"},
	{"O_RDWR", 2, "open, openat: flags"}, {"O_CREAT", 0o100, "open, openat: flags"}, {"O_TRUNC", 0o1000, "open, openat: flags"},
	{"O_APPEND", 0o2000, "open, openat: flags"},
	{"S_IFMT", 0o170000, "mknod, mknodat: mode"}, {"S_IFSOCK", 0o140000, "mknod, mknodat: mode"},
	{"S_IFREG", 0o100000, "mknod, mknodat: mode"}, {"S_IFBLK", 0o60000, "mknod, mknodat: mode"},
	{"S_IFCHR", 0o20000, "mknod, mknodat: mode"}, {"S_IFIFO", 0o10000, "mknod, mknodat: mode"},
	{"S_ISUID", 0o4000, "chmod, fchmodat: mode"}, {"S_ISGID", 0o2000, "chmod, fchmodat: mode"},
	{"PROT_EXEC", 4, "mmap, mprotect: prot"}, {"PROT_WRITE", 2, "mmap, mprotect: prot"},
	{"TIOCSTI", 0x5412, "ioctl: request"}, {"TIOCLINUX", 0x541c, "ioctl: request"},
	{"PR_SET_NAME", 15, "prctl: option"}, {"PR_SET_SECCOMP", 22, "prctl: option"}, {"PR_SET_MM", 35, "prctl: option"},
	{"PR_SET_NO_NEW_PRIVS", 38, "prctl: option"}, {"PR_SET_DUMPABLE", 4, "prctl: option"},
	{"PER_LINUX", 0, "personality"}, {"PER_LINUX32", 8, "personality"}, {"UNAME26", 0x20000, "personality"},
	{"ADDR_NO_RANDOMIZE", 0x40000, "personality"}, {"READ_IMPLIES_EXEC", 0x400000, "personality"},
	{"SIGKILL", 9, "kill: signal"}, {"SIGSTOP", 19, "kill: signal"}, {"SIGTERM", 15, "kill: signal"},
}

// Constants returns the names that a condition's value and mask may use.
func Constants() []Constant { return slices.Clone(constants) }

func constantIndex(name string) int {
	for i := range constants {
		if constants[i].Name == name {
			return i
		}
	}
	return -1
}

// secondErrnos are the second names that <errno.h> has for some errors.
var secondErrnos = map[string]string{"EWOULDBLOCK": "EAGAIN", "EDEADLOCK": "EDEADLK", "ENOTSUP": "EOPNOTSUPP"}

// ErrnoNames returns every name of an error that a document may use, sorted.
func ErrnoNames() []string {
	names := slices.Collect(maps.Keys(secondErrnos))
	for _, e := range errnos() {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names
}

// errnos returns the vocabulary of errors, in order of number.
func errnos() []Constant {
	var out []Constant
	for i := uint16(1); i <= MaxErrno; i++ {
		if name := ErrnoName(i); name[0] == 'E' {
			out = append(out, Constant{Name: name, Value: uint64(i)})
		}
	}
	return out
}
