// SPDX-License-Identifier: Apache-2.0

package seccomp

// Class is a kind of call that a profile can ask to see, with the rules that pick it out by number and registers.
type Class struct {
	Name  string
	Doc   string
	Rules []AuditRule
}

// Classes returns every audit class, in the order in which a call that fits several is named.
func Classes() []Class {
	return []Class{
		{"exec", "programs started: execve, execveat", execRules()},
		{"privilege", "user and group ids, capabilities, no_new_privs, securebits, dumpable and the process's own " +
			"seccomp and Landlock sandboxes", privilegeRules()},
		{"file-write", "files opened for writing or created, truncated, linked; directories and nodes made. A file " +
			"opened only for reading is not notified; openat2 always is, for its flags are behind a pointer", writeRules()},
		{"file-delete", "names removed or replaced: unlink, rmdir, rename and their families", deleteRules()},
		{"file-attr", "mode, owner, times, extended and inode attributes changed", attrRules()},
		{"file-read", "files opened only for reading (each open, not each read); openat2 always", readRules()},
		{"net", "sockets other than unix ones made; connect, bind, listen, accept; datagrams sent to an address. " +
			"sendmsg and sendmmsg always, for their address is behind a pointer", netRules()},
		{"fork", "processes made: fork, vfork, clone but for threads; clone3 always, for its flags are behind a pointer", forkRules()},
		{"process", "what acts on another process: signals, ptrace, its memory, its descriptors, its limits", processRules()},
		{"memory", "memory made executable after it was written: mmap with write and exec, mprotect to exec, memfd_create; userfaultfd", memoryRules()},
		{"namespace", "namespaces made or entered: unshare, setns, clone with a namespace flag; clone3 always", namespaceRules()},
		{"mount", "mounts, roots, swap and quotas", simple("mount", "mount", "umount", "umount2", "pivot_root", "chroot",
			"move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
			"swapon", "swapoff", "quotactl", "quotactl_fd")},
		{"keyring", "the kernel's keyrings", simple("keyring", "add_key", "request_key", "keyctl")},
		{"module", "kernel code: modules and kexec", simple("module", "init_module", "finit_module", "delete_module",
			"create_module", "kexec_load", "kexec_file_load")},
		{"bpf", "bpf and performance events", simple("bpf", "bpf", "perf_event_open", "uprobe", "uretprobe")},
		{"io-uring", "io_uring, whose operations no filter sees", simple("io-uring", "io_uring_setup", "io_uring_enter", "io_uring_register")},
		{"time", "the machine's clocks set", simple("time", "settimeofday", "stime", "clock_settime", "clock_settime64",
			"adjtimex", "clock_adjtime", "clock_adjtime64")},
		{"ipc", "System V IPC and POSIX message queues", simple("ipc", "ipc", "shmget", "shmat", "shmdt", "shmctl", "msgget", "msgsnd",
			"msgrcv", "msgctl", "semget", "semop", "semctl", "semtimedop", "semtimedop_time64", "mq_open", "mq_unlink")},
		{"system", "the machine itself: reboot, host name, kernel log, accounting, I/O ports", simple("system", "reboot",
			"sethostname", "setdomainname", "syslog", "acct", "vhangup", "ioperm", "iopl", "personality", "modify_ldt", "vm86", "vm86old")},
	}
}

// KnownClass returns the class of a name.
func KnownClass(name string) (Class, bool) {
	for _, c := range Classes() {
		if c.Name == name {
			return c, true
		}
	}
	return Class{}, false
}

// Tracking returns the rules of the calls that every program that decides anything notifies: starts of programs and
// what changes the identity that events show. They are Silent unless an audit rule or a denial matches as well.
func Tracking() []AuditRule {
	return []AuditRule{
		{ID: "tracking", Syscalls: []string{"execve", "execveat"}},
		{ID: "tracking", Syscalls: credentialCalls},
		{ID: "tracking", Syscalls: []string{"prctl"}, Args: []Cond{{Index: 0, Op: OpEqual, Value: 15}}}, // PR_SET_NAME
	}
}

var credentialCalls = []string{
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
	"setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32", "setfsuid32", "setfsgid32",
	"setgroups32", "capset",
}

func simple(class string, calls ...string) []AuditRule {
	return []AuditRule{{ID: class, Class: class, Syscalls: calls}}
}

// bits holds if all the bits are set, none if none of them is.
func bits(arg uint8, v uint64) []Cond {
	return []Cond{{Index: arg, Op: OpMaskedEqual, Value: v, Mask: v}}
}
func none(arg uint8, v uint64) []Cond { return []Cond{{Index: arg, Op: OpMaskedEqual, Mask: v}} }
func is(arg uint8, v uint64) []Cond   { return []Cond{{Index: arg, Op: OpEqual, Value: v}} }
func not(arg uint8, v uint64) []Cond  { return []Cond{{Index: arg, Op: OpNotEqual, Value: v}} }
