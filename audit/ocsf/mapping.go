// SPDX-License-Identifier: Apache-2.0

package ocsf

import (
	"slices"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// Class is a class of events.
type Class struct {
	UID      int
	Name     string
	Category int
}

// Activity is what happened, in the terms of a class.
type Activity struct {
	ID   int
	Name string
}

// other is the id of an activity that a class has no id for; its name then says what it is.
const other = 99

var categories = map[int]string{1: "System Activity", 2: "Findings", 4: "Network Activity", 6: "Application Activity"}

var (
	fileActivity     = Class{1001, "File System Activity", 1}
	kernelActivity   = Class{1003, "Kernel Activity", 1}
	memoryActivity   = Class{1004, "Memory Activity", 1}
	processActivity  = Class{1007, "Process Activity", 1}
	eventLogActivity = Class{1008, "Event Log Activity", 1}
	detectionFinding = Class{2004, "Detection Finding", 2}
	networkActivity  = Class{4001, "Network Activity", 4}
	lifecycle        = Class{6002, "Application Lifecycle", 6}
	applicationError = Class{6008, "Application Error", 6}
)

// Row is one row of the mapping: which records become which events.
type Row struct {
	Kind     audit.Kind
	Calls    []string // of kind syscall; nil: all
	When     string   // what else must hold, in Markdown; empty: nothing
	Class    Class
	Activity Activity

	is   func(*audit.Event) bool // When; nil: always
	fill func(*event, *record.Record)
}

// Finding is the row of what a denied or killed call becomes beside what it would have been.
func Finding() Row {
	return Row{Kind: audit.KindSyscall, When: "its `verdict` is `denied` or `killed`: a second event", Class: detectionFinding, Activity: Activity{1, "Create"}}
}

// Mapping returns the mapping. The first row that a record fits is the one that counts.
func Mapping() []Row { return slices.Clone(mapping) }

func rowOf(e *audit.Event) *Row {
	if e.Validate() == nil {
		for i := range mapping {
			if row := &mapping[i]; row.fits(e) {
				return row
			}
		}
	}
	return &Row{Class: lifecycle, Activity: Activity{other, string(e.Kind)}, fill: fillApp} // of a newer Metsuke
}

func (row *Row) fits(e *audit.Event) bool {
	return row.Kind == e.Kind && (row.Calls == nil || slices.Contains(row.Calls, e.Syscall.Syscall)) && (row.is == nil || row.is(e))
}

func calls(names string) []string { return strings.Fields(names) }

const (
	pathRead   = "its path could be read"
	onePID     = "`pid` is above 0"
	openCalls  = "open openat openat2"
	fatalWords = "SIGKILL SIGTERM SIGINT SIGQUIT SIGHUP SIGABRT"
)

var mapping = []Row{
	{audit.KindSyscall, calls("execve execveat"), pathRead, processActivity, Activity{1, "Launch"}, hasPath("path"), fillExec},
	{audit.KindSyscall, calls("fork vfork clone clone3"), "", processActivity, Activity{1, "Launch"}, nil, fillFork},
	{audit.KindSyscall, calls("setuid setreuid setresuid setfsuid setuid32 setreuid32 setresuid32 setfsuid32"), "", processActivity, Activity{5, "Set User ID"}, nil, fillOwnProcess},
	{audit.KindSyscall, calls("kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"), onePID + ", and `signal` is one of `" + fatalWords + "`", processActivity, Activity{2, "Terminate"}, isFatal, fillTarget},
	{audit.KindSyscall, calls("ptrace"), onePID, processActivity, Activity{3, "Open"}, hasTarget, fillTarget},
	{audit.KindSyscall, calls("process_vm_readv"), onePID, memoryActivity, Activity{7, "Read"}, hasTarget, fillTarget},
	{audit.KindSyscall, calls("process_vm_writev"), onePID, memoryActivity, Activity{8, "Write"}, hasTarget, fillTarget},
	{audit.KindSyscall, calls("mmap mmap2"), "", memoryActivity, Activity{1, "Allocate Page"}, nil, fillMemory},
	{audit.KindSyscall, calls("mprotect pkey_mprotect"), "", memoryActivity, Activity{2, "Modify Page"}, nil, fillMemory},

	{audit.KindSyscall, calls(openCalls), pathRead + ", and `flags` has `O_CREAT`", fileActivity, Activity{1, "Create"}, opens("O_CREAT"), fillFile("path")},
	{audit.KindSyscall, calls(openCalls), pathRead + ", and `flags` has `O_TRUNC`", fileActivity, Activity{3, "Update"}, opens("O_TRUNC"), fillFile("path")},
	{audit.KindSyscall, calls(openCalls + " uselib"), pathRead, fileActivity, Activity{14, "Open"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("creat mkdir mkdirat mknod mknodat link linkat symlink symlinkat"), pathRead, fileActivity, Activity{1, "Create"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("truncate truncate64"), pathRead, fileActivity, Activity{3, "Update"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("unlink unlinkat rmdir"), pathRead, fileActivity, Activity{4, "Delete"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("rename renameat renameat2"), pathRead, fileActivity, Activity{5, "Rename"}, hasPath("from"), fillRename},
	{audit.KindSyscall, calls("chmod fchmodat fchmodat2 chown lchown fchownat chown32 lchown32"), pathRead, fileActivity, Activity{7, "Set Security"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("utime utimes futimesat utimensat utimensat_time64 file_setattr setxattr lsetxattr setxattrat removexattr lremovexattr removexattrat"), pathRead, fileActivity, Activity{6, "Set Attributes"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("mount"), pathRead, fileActivity, Activity{12, "Mount"}, hasPath("target"), fillFile("target")},
	{audit.KindSyscall, calls("umount umount2"), pathRead, fileActivity, Activity{13, "Unmount"}, hasPath("target"), fillFile("target")},

	{audit.KindSyscall, calls("connect"), "", networkActivity, Activity{1, "Open"}, nil, fillOutbound},
	{audit.KindSyscall, calls("sendto sendmsg sendmmsg"), "", networkActivity, Activity{6, "Traffic"}, nil, fillOutbound},
	{audit.KindSyscall, calls("accept accept4"), "", networkActivity, Activity{1, "Open"}, nil, fillInbound},
	{audit.KindSyscall, calls("bind"), "", networkActivity, Activity{other, "Bind"}, nil, fillBind},
	{audit.KindSyscall, calls("listen"), "", networkActivity, Activity{7, "Listen"}, nil, fillBind},

	{audit.KindSyscall, nil, "", kernelActivity, Activity{4, "Invoke"}, nil, fillKernel},

	{audit.KindStart, nil, "", lifecycle, Activity{3, "Start"}, nil, fillStart},
	{audit.KindExec, nil, "", processActivity, Activity{1, "Launch"}, nil, fillSession},
	{audit.KindLimit, nil, "", lifecycle, Activity{other, "Limit Lowered"}, nil, fillLimit},
	{audit.KindOOM, nil, "", applicationError, Activity{1, "General Error"}, nil, fillOOM},
	{audit.KindLoss, nil, "", eventLogActivity, Activity{other, "Loss"}, nil, fillLoss},
	{audit.KindExit, nil, "of an exec session", processActivity, Activity{2, "Terminate"}, func(e *audit.Event) bool { return e.Exec != "" }, fillExit},
	{audit.KindExit, nil, "", lifecycle, Activity{4, "Stop"}, nil, fillExit},
}

// pathOf returns the path that is an argument's value, if there is one.
func pathOf(c *audit.Syscall, name string) (string, bool) {
	for i := range c.Args {
		if a := &c.Args[i]; a.Name == name && a.IsPath() {
			return a.Value, true
		}
	}
	return "", false
}

func hasPath(name string) func(*audit.Event) bool {
	return func(e *audit.Event) bool {
		_, ok := pathOf(e.Syscall, name)
		return ok
	}
}

// valueOf returns an argument's value as text; empty if there is none.
func valueOf(c *audit.Syscall, name string) string {
	for i := range c.Args {
		if c.Args[i].Name == name {
			return c.Args[i].Value
		}
	}
	return ""
}

func opens(flag string) func(*audit.Event) bool {
	return func(e *audit.Event) bool {
		_, ok := pathOf(e.Syscall, "path")
		return ok && slices.Contains(strings.Split(valueOf(e.Syscall, "flags"), "|"), flag)
	}
}
