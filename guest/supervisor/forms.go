// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"strings"
	"sync"

	"metsuke.dev/metsuke/seccomp"
)

// form says how to show the calls of one number.
type form struct {
	name   string
	arch   string  // OCI name
	fields []field // one a register, in order; without a renderer: not shown
	exec   bool    // execve and execveat
	tracks bool    // may change what we cache of its caller
}

// field is one argument: its name and how it is rendered.
type field struct {
	name   string
	render func(d *decoder, f *field, value uint64, i int)
	terms  *terms // of flags and choices
}

// formTable holds the forms of one architecture, by number.
type formTable struct {
	arch seccomp.Arch
	byNr [formLimit]*form
}

// formLimit is above the numbers of all calls of the native architectures (471 in Linux 6.18).
const formLimit = 512

// registers is the form of calls that we know nothing of.
var registers = []field{
	{name: "arg0", render: renderHex}, {name: "arg1", render: renderHex}, {name: "arg2", render: renderHex},
	{name: "arg3", render: renderHex}, {name: "arg4", render: renderHex}, {name: "arg5", render: renderHex},
}

// forms returns the table of the native architecture, made once.
var forms = sync.OnceValue(func() *formTable {
	t := &formTable{arch: seccomp.NativeArch()}
	archName := t.arch.Name()
	for line := range strings.Lines(formText) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		nr, ok := seccomp.SyscallNumber(t.arch, words[0])
		if !ok || nr < 0 || nr >= formLimit {
			continue // the other architecture's
		}
		f := &form{name: words[0], arch: archName, fields: make([]field, 0, len(words)-1)}
		for _, word := range words[1:] {
			f.fields = append(f.fields, newField(word))
		}
		t.byNr[nr] = f
	}
	for _, rule := range seccomp.Tracking() {
		for _, name := range rule.Syscalls {
			if nr, ok := seccomp.SyscallNumber(t.arch, name); ok && nr >= 0 && nr < formLimit {
				if t.byNr[nr] == nil {
					t.byNr[nr] = &form{name: name, arch: archName, fields: registers}
				}
				t.byNr[nr].tracks = true
				t.byNr[nr].exec = name == "execve" || name == "execveat"
			}
		}
	}
	return t
})

// newField reads name:kind; a mere "-" is a register that says nothing to a reader. An unknown kind, which a test
// excludes, is shown in hex.
func newField(word string) field {
	name, kind, _ := strings.Cut(word, ":")
	switch {
	case name == "-":
		return field{}
	case renderers[kind] != nil:
		return field{name: name, render: renderers[kind]}
	case vocabulary()[kind] != nil:
		return field{name: name, render: renderTerms, terms: vocabulary()[kind]}
	}
	return field{name: name, render: renderHex}
}

// formText is one call a line: its name, and what its registers hold. Kinds are the keys of renderers and of
// vocabulary. Environments are left out on purpose: they hold secrets.
const formText = `
execve path:path argv:argv -
execveat dirfd:at path:path argv:argv - flags:at-flags
open path:path flags:open mode:open-mode
openat dirfd:at path:path flags:open mode:open-mode
openat2 dirfd:at path:path how:open-how
creat path:path mode:mode
open_by_handle_at mountfd:int handle:hex flags:open
name_to_handle_at dirfd:at path:path - - flags:at-flags
close fd:int
close_range first:uint last:uint flags:hex
read fd:int - count:uint
pread64 fd:int - count:uint offset:int64
readv fd:int - iovcnt:int
preadv fd:int - iovcnt:int
write fd:int - count:uint
pwrite64 fd:int - count:uint offset:int64
writev fd:int - iovcnt:int
pwritev fd:int - iovcnt:int
pwritev2 fd:int - iovcnt:int
truncate path:path length:int64
ftruncate fd:int length:int64
fallocate fd:int mode:hex offset:int64 length:int64
sendfile out_fd:int in_fd:int - count:uint
copy_file_range in_fd:int - out_fd:int - count:uint
splice in_fd:int - out_fd:int - count:uint
stat path:path
lstat path:path
fstat fd:int
newfstatat dirfd:at path:path - flags:at-flags
statx dirfd:at path:path flags:at-flags mask:hex
statfs path:path
access path:path mode:access
faccessat dirfd:at path:path mode:access
faccessat2 dirfd:at path:path mode:access flags:at-flags
readlink path:path
readlinkat dirfd:at path:path
getdents64 fd:int - count:uint
chdir path:path
fchdir fd:int
getcwd - size:uint
mkdir path:path mode:mode
mkdirat dirfd:at path:path mode:mode
mknod path:path mode:mode dev:hex
mknodat dirfd:at path:path mode:mode dev:hex
rmdir path:path
unlink path:path
unlinkat dirfd:at path:path flags:unlink
rename from:path to:path
renameat from_dirfd:at from:path to_dirfd:at to:path
renameat2 from_dirfd:at from:path to_dirfd:at to:path flags:rename
link target:path path:path
linkat target_dirfd:at target:path dirfd:at path:path flags:at-flags
symlink target:path path:path
symlinkat target:path dirfd:at path:path
chmod path:path mode:mode
fchmod fd:int mode:mode
fchmodat dirfd:at path:path mode:mode
fchmodat2 dirfd:at path:path mode:mode flags:at-flags
chown path:path uid:id gid:id
fchown fd:int uid:id gid:id
lchown path:path uid:id gid:id
fchownat dirfd:at path:path uid:id gid:id flags:at-flags
utime path:path
utimes path:path
futimesat dirfd:at path:path
utimensat dirfd:at path:path - flags:at-flags
setxattr path:path name:name - size:uint flags:hex
lsetxattr path:path name:name - size:uint flags:hex
fsetxattr fd:int name:name - size:uint flags:hex
setxattrat dirfd:at path:path flags:at-flags name:name
removexattr path:path name:name
lremovexattr path:path name:name
fremovexattr fd:int name:name
removexattrat dirfd:at path:path flags:at-flags name:name
getxattr path:path name:name - size:uint
lgetxattr path:path name:name - size:uint
fgetxattr fd:int name:name - size:uint
umask mask:mode
flock fd:int operation:hex
fcntl fd:int cmd:fcntl arg:hex
ioctl fd:int request:ioctl arg:hex
dup fd:int
dup2 fd:int to:int
dup3 fd:int to:int flags:open
pipe2 - flags:open
memfd_create name:name flags:memfd
memfd_secret flags:hex
inotify_add_watch fd:int path:path mask:hex
fanotify_init flags:hex event_flags:hex
fanotify_mark fd:int flags:hex mask:hex dirfd:at path:path
mount source:path target:path type:name flags:mount data:hex
umount2 target:path flags:umount
pivot_root new_root:path put_old:path
chroot path:path
fsopen type:name flags:hex
fspick dirfd:at path:path flags:hex
fsconfig fd:int cmd:uint key:name value:hex aux:int
fsmount fd:int flags:hex attributes:hex
move_mount from_dirfd:at from:path to_dirfd:at to:path flags:hex
open_tree dirfd:at path:path flags:hex
open_tree_attr dirfd:at path:path flags:hex
mount_setattr dirfd:at path:path flags:hex attr:hex size:uint
statmount req:hex - - flags:hex
listmount req:hex - - flags:hex
swapon path:path flags:hex
swapoff path:path
quotactl cmd:hex special:path id:int
quotactl_fd fd:int cmd:hex id:int
acct path:path
uselib path:path
nfsservctl cmd:int
lookup_dcookie cookie:hex
sysfs option:int
ustat dev:hex
socket domain:domain type:socktype protocol:int
socketpair domain:domain type:socktype protocol:int
connect fd:int addr:sockaddr addrlen:uint
bind fd:int addr:sockaddr addrlen:uint
listen fd:int backlog:int
accept fd:int
accept4 fd:int - - flags:socktype
sendto fd:int - len:uint flags:msg addr:sendaddr addrlen:uint
sendmsg fd:int msg:msghdr flags:msg
sendmmsg fd:int msgs:mmsghdr vlen:uint flags:msg
recvfrom fd:int - len:uint flags:msg
recvmsg fd:int - flags:msg
recvmmsg fd:int - vlen:uint flags:msg
getsockname fd:int
getpeername fd:int
setsockopt fd:int level:sockopt-level name:int - len:uint
getsockopt fd:int level:sockopt-level name:int
shutdown fd:int how:shutdown
clone flags:clone stack:hex
clone3 args:clone-args size:uint
fork
vfork
unshare flags:unshare
setns fd:int type:unshare
exit status:int
exit_group status:int
kill pid:int signal:signal
tkill tid:int signal:signal
tgkill pid:int tid:int signal:signal
rt_sigqueueinfo pid:int signal:signal
rt_tgsigqueueinfo pid:int tid:int signal:signal
pidfd_open pid:int flags:hex
pidfd_getfd pidfd:int fd:int flags:hex
pidfd_send_signal pidfd:int signal:signal - flags:hex
process_madvise pidfd:int - count:uint advice:int flags:hex
process_mrelease pidfd:int flags:hex
ptrace request:ptrace pid:int addr:hex data:hex
process_vm_readv pid:int - local_count:uint - remote_count:uint flags:hex
process_vm_writev pid:int - local_count:uint - remote_count:uint flags:hex
kcmp pid1:int pid2:int type:int
prctl option:prctl arg2:hex arg3:hex arg4:hex arg5:hex
arch_prctl code:hex addr:hex
personality persona:hex
seccomp operation:seccomp flags:hex args:hex
bpf cmd:bpf attr:hex size:uint
perf_event_open attr:hex pid:int cpu:int group_fd:int flags:hex
userfaultfd flags:open
io_uring_setup entries:uint params:hex
io_uring_enter fd:int to_submit:uint min_complete:uint flags:hex
io_uring_register fd:int opcode:uint arg:hex nr_args:uint
io_setup nr_events:uint
io_submit ctx:hex nr:int64
landlock_create_ruleset attr:hex size:uint flags:hex
landlock_add_rule fd:int type:uint attr:hex flags:hex
landlock_restrict_self fd:int flags:hex
lsm_set_self_attr attr:uint ctx:hex size:uint flags:hex
setuid uid:id
setgid gid:id
setreuid ruid:id euid:id
setregid rgid:id egid:id
setresuid ruid:id euid:id suid:id
setresgid rgid:id egid:id sgid:id
setfsuid uid:id
setfsgid gid:id
setgroups size:int list:hex
capset header:hex data:capset
capget header:hex
setsid
setpgid pid:int pgid:int
setpriority which:int who:int priority:int
ioprio_set which:int who:int ioprio:hex
sched_setscheduler pid:int policy:int
sched_setattr pid:int attr:hex flags:hex
sched_setaffinity pid:int len:uint
setrlimit resource:rlimit limit:hex
prlimit64 pid:int resource:rlimit new:hex old:hex
mmap addr:hex length:uint prot:prot flags:mmap fd:int offset:hex
mprotect addr:hex length:uint prot:prot
pkey_mprotect addr:hex length:uint prot:prot pkey:int
munmap addr:hex length:uint
mremap addr:hex old_length:uint length:uint flags:hex
remap_file_pages addr:hex size:uint prot:prot pgoff:uint flags:mmap
madvise addr:hex length:uint advice:int
mlock addr:hex length:uint
mlock2 addr:hex length:uint flags:hex
mlockall flags:hex
mbind addr:hex length:uint mode:int
set_mempolicy mode:int
set_mempolicy_home_node addr:hex length:uint node:uint
migrate_pages pid:int maxnode:uint
move_pages pid:int count:uint
add_key type:name description:name - plen:uint keyring:int
request_key type:name description:name callout:name keyring:int
keyctl operation:keyctl arg2:hex arg3:hex arg4:hex arg5:hex
init_module image:hex length:uint params:name
finit_module fd:int params:name flags:hex
delete_module name:name flags:open
create_module name:name size:uint
get_kernel_syms table:hex
query_module name:name which:int
kexec_load entry:hex segments:uint - flags:hex
kexec_file_load kernel_fd:int initrd_fd:int cmdline_len:uint cmdline:name flags:hex
reboot magic:hex magic2:hex cmd:hex arg:hex
syslog type:int - len:int
sethostname name:name len:uint
setdomainname name:name len:uint
settimeofday tv:hex tz:hex
clock_settime clock:int
clock_adjtime clock:int
adjtimex buf:hex
iopl level:int
ioperm from:uint num:uint turn_on:int
modify_ldt func:int - size:uint
vhangup
vm86 fn:int
vm86old info:hex
_sysctl args:hex
file_setattr dirfd:at path:path attr:hex size:uint flags:at-flags
file_getattr dirfd:at path:path attr:hex size:uint flags:at-flags
uprobe
uretprobe
shmget key:int size:uint flags:hex
shmat id:int addr:hex flags:hex
shmdt addr:hex
shmctl id:int cmd:int
msgget key:int flags:hex
msgsnd id:int - size:uint flags:hex
msgrcv id:int - size:uint type:int64 flags:hex
msgctl id:int cmd:int
semget key:int count:int flags:hex
semop id:int - count:uint
semtimedop id:int - count:uint
semctl id:int num:int cmd:int
mq_open name:name flags:open mode:open-mode
mq_unlink name:name
vmsplice fd:int - count:uint flags:hex
tee in_fd:int out_fd:int len:uint flags:hex
syncfs fd:int
getppid
getpid
gettid
getuid
`
