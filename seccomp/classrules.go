// SPDX-License-Identifier: Apache-2.0

package seccomp

// The numbers below are those of the generic Linux ABI; x86 and ARM share them.

// Flags of open(2). Access mode 3 means "checked for both, for ioctl only" and counts as writing, as its bits say.
// O_TMPFILE needs a write mode, so it needs no bit of its own. O_APPEND alone writes nothing.
const (
	oWronly = 0x1
	oRdwr   = 0x2
	oCreat  = 0x40
	oTrunc  = 0x200

	oWriting = oWronly | oRdwr | oCreat | oTrunc
)

// openCalls are the calls that take flags in a register, and which.
var openCalls = []struct {
	name  string
	flags uint8
}{{"open", 1}, {"openat", 2}, {"open_by_handle_at", 2}}

func execRules() []AuditRule { return simple("exec", "execve", "execveat") }

func writeRules() []AuditRule {
	const class = "file-write"
	var rules []AuditRule
	for _, c := range openCalls {
		for _, bit := range []uint64{oWronly, oRdwr, oCreat, oTrunc} {
			rules = append(rules, AuditRule{"file-write-open", class, []string{c.name}, bits(c.flags, bit)})
		}
	}
	return append(rules,
		AuditRule{"file-write-open", class, []string{"openat2", "creat"}, nil},
		AuditRule{"file-write", class, []string{
			"truncate", "truncate64", "ftruncate", "ftruncate64", "fallocate",
			"mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat",
		}, nil})
}

func readRules() []AuditRule {
	const class = "file-read"
	var rules []AuditRule
	for _, c := range openCalls {
		rules = append(rules, AuditRule{"file-read-open", class, []string{c.name}, none(c.flags, oWriting)})
	}
	return append(rules, AuditRule{"file-read-open", class, []string{"openat2", "uselib"}, nil})
}

func deleteRules() []AuditRule {
	return simple("file-delete", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2")
}

func attrRules() []AuditRule {
	const class = "file-attr"
	return append(simple(class,
		"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "chown32", "fchown32", "lchown32",
		"utime", "utimes", "futimesat", "utimensat", "utimensat_time64", "file_setattr",
		"setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat"),
		AuditRule{class, class, []string{"ioctl"}, is(1, 0x40086602)}, // FS_IOC_SETFLAGS
		AuditRule{class, class, []string{"ioctl"}, is(1, 0x401c5820)}, // FS_IOC_FSSETXATTR
		AuditRule{class, class, []string{"ioctl"}, is(1, 0x40046602)}) // FS_IOC32_SETFLAGS
}

func netRules() []AuditRule {
	const class = "net"
	return []AuditRule{
		{"net-socket", class, []string{"socket"}, not(0, 1)}, // AF_UNIX
		{"net", class, []string{"connect", "bind", "listen", "accept", "accept4", "sendmsg", "sendmmsg"}, nil},
		{"net-send", class, []string{"sendto"}, not(4, 0)},
	}
}

func forkRules() []AuditRule {
	return append(simple("fork", "fork", "vfork", "clone3"),
		AuditRule{"fork", "fork", []string{"clone"}, none(0, 0x10000)}) // CLONE_THREAD
}

func namespaceRules() []AuditRule {
	rules := simple("namespace", "unshare", "setns", "clone3")
	for _, flag := range []uint64{ // CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
		0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
	} {
		rules = append(rules, AuditRule{"namespace", "namespace", []string{"clone"}, bits(0, flag)})
	}
	return rules
}

func processRules() []AuditRule {
	const class = "process"
	return append(simple(class,
		"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal",
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp",
		"migrate_pages"),
		AuditRule{class, class, []string{"prlimit64", "move_pages"}, not(0, 0)})
}

func memoryRules() []AuditRule {
	const class, protWrite, protExec = "memory", 2, 4
	return append(simple(class, "memfd_create", "memfd_secret", "userfaultfd"),
		AuditRule{class, class, []string{"mmap", "mmap2"}, bits(2, protWrite|protExec)},
		AuditRule{class, class, []string{"mprotect", "pkey_mprotect"}, bits(2, protExec)})
}

func privilegeRules() []AuditRule {
	const class = "privilege"
	rules := append(simple(class, credentialCalls...),
		AuditRule{class, class, []string{"seccomp"}, is(0, 0)}, // SECCOMP_SET_MODE_STRICT
		AuditRule{class, class, []string{"seccomp"}, is(0, 1)}, // SECCOMP_SET_MODE_FILTER
		AuditRule{class, class, []string{"landlock_restrict_self"}, nil})
	for _, option := range []uint64{
		4, 8, 22, 24, 28, 35, 38, 47, // PR_SET_DUMPABLE, KEEPCAPS, SECCOMP, CAPBSET_DROP, SECUREBITS, SET_MM, NO_NEW_PRIVS, CAP_AMBIENT
		0x59616d61, // PR_SET_PTRACER
	} {
		rules = append(rules, AuditRule{class, class, []string{"prctl"}, is(0, option)})
	}
	return rules
}
