// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"maps"
	"sync"

	"golang.org/x/sys/unix"
)

// vocabulary is the names of flags and choices, by the kinds of formText. Values are unix.*, as some differ between
// architectures. It is made when it is needed: the launcher, which is in the same binary, does not pay for it.
var vocabulary = sync.OnceValue(func() map[string]*terms {
	v := flags()
	maps.Copy(v, choices())
	return v
})

// flags is what is neither long nor a choice among many.
func flags() map[string]*terms {
	return map[string]*terms{
		"open": {names: []term{
			{unix.O_RDONLY, "O_RDONLY", unix.O_ACCMODE}, {unix.O_WRONLY, "O_WRONLY", unix.O_ACCMODE}, {unix.O_RDWR, "O_RDWR", unix.O_ACCMODE},
			{bits: unix.O_CREAT, name: "O_CREAT"}, {bits: unix.O_EXCL, name: "O_EXCL"}, {bits: unix.O_TRUNC, name: "O_TRUNC"},
			{bits: unix.O_APPEND, name: "O_APPEND"}, {bits: unix.O_CLOEXEC, name: "O_CLOEXEC"}, {bits: unix.O_NONBLOCK, name: "O_NONBLOCK"},
			{bits: unix.O_TMPFILE, name: "O_TMPFILE"}, {bits: unix.O_DIRECTORY, name: "O_DIRECTORY"}, {bits: unix.O_NOFOLLOW, name: "O_NOFOLLOW"},
			{bits: unix.O_PATH, name: "O_PATH"}, {bits: unix.O_NOCTTY, name: "O_NOCTTY"}, {bits: unix.O_SYNC, name: "O_SYNC"},
			{bits: unix.O_DSYNC, name: "O_DSYNC"}, {bits: unix.O_DIRECT, name: "O_DIRECT"}, {bits: unix.O_NOATIME, name: "O_NOATIME"},
			{bits: largeFile, name: "O_LARGEFILE"}, {bits: unix.O_ASYNC, name: "O_ASYNC"},
		}},
		"resolve": {names: bits(
			unix.RESOLVE_NO_XDEV, "RESOLVE_NO_XDEV", unix.RESOLVE_NO_MAGICLINKS, "RESOLVE_NO_MAGICLINKS",
			unix.RESOLVE_NO_SYMLINKS, "RESOLVE_NO_SYMLINKS", unix.RESOLVE_BENEATH, "RESOLVE_BENEATH",
			unix.RESOLVE_IN_ROOT, "RESOLVE_IN_ROOT", resolveCached, "RESOLVE_CACHED")},
		"at-flags": {names: bits(
			unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW", unix.AT_EACCESS, "AT_EACCESS", unix.AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW",
			unix.AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT", unix.AT_EMPTY_PATH, "AT_EMPTY_PATH", unix.AT_RECURSIVE, "AT_RECURSIVE")},
		"unlink": {names: bits(unix.AT_REMOVEDIR, "AT_REMOVEDIR")},
		"rename": {names: bits(unix.RENAME_NOREPLACE, "RENAME_NOREPLACE", unix.RENAME_EXCHANGE, "RENAME_EXCHANGE", unix.RENAME_WHITEOUT, "RENAME_WHITEOUT")},
		"access": {names: bits(unix.R_OK, "R_OK", unix.W_OK, "W_OK", unix.X_OK, "X_OK"), zero: "F_OK"},
		"mount": {long: true, names: bits(
			unix.MS_RDONLY, "MS_RDONLY", unix.MS_NOSUID, "MS_NOSUID", unix.MS_NODEV, "MS_NODEV", unix.MS_NOEXEC, "MS_NOEXEC",
			unix.MS_SYNCHRONOUS, "MS_SYNCHRONOUS", unix.MS_REMOUNT, "MS_REMOUNT", unix.MS_BIND, "MS_BIND", unix.MS_MOVE, "MS_MOVE",
			unix.MS_REC, "MS_REC", unix.MS_SILENT, "MS_SILENT", unix.MS_UNBINDABLE, "MS_UNBINDABLE", unix.MS_PRIVATE, "MS_PRIVATE",
			unix.MS_SLAVE, "MS_SLAVE", unix.MS_SHARED, "MS_SHARED", unix.MS_NOATIME, "MS_NOATIME", unix.MS_RELATIME, "MS_RELATIME",
			unix.MS_STRICTATIME, "MS_STRICTATIME", unix.MS_LAZYTIME, "MS_LAZYTIME", unix.MS_NOSYMFOLLOW, "MS_NOSYMFOLLOW")},
		"umount": {names: bits(unix.MNT_FORCE, "MNT_FORCE", unix.MNT_DETACH, "MNT_DETACH", unix.MNT_EXPIRE, "MNT_EXPIRE", unix.UMOUNT_NOFOLLOW, "UMOUNT_NOFOLLOW")},
		"memfd": {names: bits(
			unix.MFD_CLOEXEC, "MFD_CLOEXEC", unix.MFD_ALLOW_SEALING, "MFD_ALLOW_SEALING", unix.MFD_HUGETLB, "MFD_HUGETLB",
			unix.MFD_NOEXEC_SEAL, "MFD_NOEXEC_SEAL", unix.MFD_EXEC, "MFD_EXEC")},
		"prot": {long: true, names: bits(unix.PROT_READ, "PROT_READ", unix.PROT_WRITE, "PROT_WRITE", unix.PROT_EXEC, "PROT_EXEC",
			unix.PROT_GROWSDOWN, "PROT_GROWSDOWN", unix.PROT_GROWSUP, "PROT_GROWSUP"), zero: "PROT_NONE"},
		"mmap": {long: true, names: append([]term{
			{unix.MAP_SHARED_VALIDATE, "MAP_SHARED_VALIDATE", unix.MAP_TYPE}, {unix.MAP_SHARED, "MAP_SHARED", unix.MAP_TYPE},
			{unix.MAP_PRIVATE, "MAP_PRIVATE", unix.MAP_TYPE},
		}, bits(unix.MAP_FIXED, "MAP_FIXED", unix.MAP_ANONYMOUS, "MAP_ANONYMOUS", unix.MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE",
			unix.MAP_GROWSDOWN, "MAP_GROWSDOWN", unix.MAP_LOCKED, "MAP_LOCKED", unix.MAP_NORESERVE, "MAP_NORESERVE",
			unix.MAP_POPULATE, "MAP_POPULATE", unix.MAP_NONBLOCK, "MAP_NONBLOCK", unix.MAP_STACK, "MAP_STACK",
			unix.MAP_HUGETLB, "MAP_HUGETLB", unix.MAP_SYNC, "MAP_SYNC")...)},
		// unshare, setns, and clone without its signal.
		"unshare": {names: bits(
			unix.CLONE_NEWTIME, "CLONE_NEWTIME", unix.CLONE_VM, "CLONE_VM", unix.CLONE_FS, "CLONE_FS", unix.CLONE_FILES, "CLONE_FILES",
			unix.CLONE_SIGHAND, "CLONE_SIGHAND", unix.CLONE_PIDFD, "CLONE_PIDFD", unix.CLONE_PTRACE, "CLONE_PTRACE",
			unix.CLONE_VFORK, "CLONE_VFORK", unix.CLONE_PARENT, "CLONE_PARENT", unix.CLONE_THREAD, "CLONE_THREAD",
			unix.CLONE_NEWNS, "CLONE_NEWNS", unix.CLONE_SYSVSEM, "CLONE_SYSVSEM", unix.CLONE_SETTLS, "CLONE_SETTLS",
			unix.CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID", unix.CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID",
			unix.CLONE_UNTRACED, "CLONE_UNTRACED", unix.CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID", unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP",
			unix.CLONE_NEWUTS, "CLONE_NEWUTS", unix.CLONE_NEWIPC, "CLONE_NEWIPC", unix.CLONE_NEWUSER, "CLONE_NEWUSER",
			unix.CLONE_NEWPID, "CLONE_NEWPID", unix.CLONE_NEWNET, "CLONE_NEWNET", unix.CLONE_IO, "CLONE_IO",
			unix.CLONE_CLEAR_SIGHAND, "CLONE_CLEAR_SIGHAND", unix.CLONE_INTO_CGROUP, "CLONE_INTO_CGROUP")},
		"socket-flags": {names: bits(unix.SOCK_CLOEXEC, "SOCK_CLOEXEC", unix.SOCK_NONBLOCK, "SOCK_NONBLOCK")},
		"msg": {names: bits(
			unix.MSG_OOB, "MSG_OOB", unix.MSG_PEEK, "MSG_PEEK", unix.MSG_DONTROUTE, "MSG_DONTROUTE", unix.MSG_DONTWAIT, "MSG_DONTWAIT",
			unix.MSG_EOR, "MSG_EOR", unix.MSG_WAITALL, "MSG_WAITALL", unix.MSG_NOSIGNAL, "MSG_NOSIGNAL", unix.MSG_MORE, "MSG_MORE",
			unix.MSG_CONFIRM, "MSG_CONFIRM", unix.MSG_TRUNC, "MSG_TRUNC", unix.MSG_ERRQUEUE, "MSG_ERRQUEUE", unix.MSG_WAITFORONE, "MSG_WAITFORONE",
			unix.MSG_FASTOPEN, "MSG_FASTOPEN", unix.MSG_ZEROCOPY, "MSG_ZEROCOPY", unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC")},
		"domain": {choice: true, signed: true, names: bits(
			unix.AF_UNSPEC, "AF_UNSPEC", unix.AF_UNIX, "AF_UNIX", unix.AF_INET, "AF_INET", unix.AF_INET6, "AF_INET6", unix.AF_NETLINK, "AF_NETLINK",
			unix.AF_PACKET, "AF_PACKET", unix.AF_VSOCK, "AF_VSOCK", unix.AF_ALG, "AF_ALG", unix.AF_BLUETOOTH, "AF_BLUETOOTH",
			unix.AF_CAN, "AF_CAN", unix.AF_TIPC, "AF_TIPC", unix.AF_XDP, "AF_XDP", unix.AF_KEY, "AF_KEY", unix.AF_RDS, "AF_RDS",
			unix.AF_QIPCRTR, "AF_QIPCRTR", unix.AF_SMC, "AF_SMC", unix.AF_NFC, "AF_NFC", unix.AF_KCM, "AF_KCM", unix.AF_PPPOX, "AF_PPPOX")},
		"socket-kind": {choice: true, names: bits(
			unix.SOCK_STREAM, "SOCK_STREAM", unix.SOCK_DGRAM, "SOCK_DGRAM", unix.SOCK_RAW, "SOCK_RAW", unix.SOCK_RDM, "SOCK_RDM",
			unix.SOCK_SEQPACKET, "SOCK_SEQPACKET", unix.SOCK_DCCP, "SOCK_DCCP", unix.SOCK_PACKET, "SOCK_PACKET")},
		"sockopt-level": {choice: true, signed: true, names: bits(
			unix.SOL_SOCKET, "SOL_SOCKET", unix.SOL_IP, "SOL_IP", unix.SOL_TCP, "SOL_TCP", unix.SOL_UDP, "SOL_UDP", unix.SOL_IPV6, "SOL_IPV6",
			unix.SOL_RAW, "SOL_RAW", unix.SOL_PACKET, "SOL_PACKET", unix.SOL_NETLINK, "SOL_NETLINK", unix.SOL_ALG, "SOL_ALG")},
		"shutdown": {choice: true, signed: true, names: bits(unix.SHUT_RD, "SHUT_RD", unix.SHUT_WR, "SHUT_WR", unix.SHUT_RDWR, "SHUT_RDWR")},
	}
}

const resolveCached = 0x20 // RESOLVE_CACHED of <linux/openat2.h>

// largeFile is the kernel's O_LARGEFILE, which old libraries still set. On amd64 unix.* has what 64-bit programs need,
// which is 0; the kernel has that of <asm-generic/fcntl.h>.
var largeFile = func() uint64 {
	if unix.O_LARGEFILE != 0 {
		return unix.O_LARGEFILE
	}
	return 0o100000
}()

// bits makes terms of alternating values and names.
func bits(pairs ...any) []term {
	ts := make([]term, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		value, name := pairs[i].(int), pairs[i+1].(string)
		ts = append(ts, term{bits: uint64(value), name: name})
	}
	return ts
}
