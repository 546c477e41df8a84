// SPDX-License-Identifier: Apache-2.0

package ocsf

import (
	"slices"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// class is a class of events.
type class struct {
	UID      int
	Name     string
	Category int
}

// activity is what happened, in the terms of a class.
type activity struct {
	ID   int
	Name string
}

// other is the id of an activity that a class has no id for; its name then says what it is.
const other = 99

var categories = map[int]string{1: "System Activity", 2: "Findings", 4: "Network Activity", 6: "Application Activity"}

var (
	fileActivity     = class{1001, "File System Activity", 1}
	kernelActivity   = class{1003, "Kernel Activity", 1}
	memoryActivity   = class{1004, "Memory Activity", 1}
	processActivity  = class{1007, "Process Activity", 1}
	eventLogActivity = class{1008, "Event Log Activity", 1}
	detectionFinding = class{2004, "Detection Finding", 2}
	networkActivity  = class{4001, "Network Activity", 4}
	lifecycle        = class{6002, "Application Lifecycle", 6}
	applicationError = class{6008, "Application Error", 6}
)

// mappingRow is one row of the mapping: which records become which events.
type mappingRow struct {
	Kind     audit.Kind
	Calls    []string // of kind syscall; nil: all
	When     string   // what else must hold, in Markdown; empty: nothing
	Class    class
	Activity activity

	is   func(*audit.Event) bool // When; nil: always
	fill func(*event, *record.Record)
}

// findingRow is the row of what a denied or killed call becomes beside what it would have been.
func findingRow() mappingRow {
	return mappingRow{Kind: audit.KindSyscall, When: "its `verdict` is `denied` or `killed`: a second event", Class: detectionFinding, Activity: activity{1, "Create"}}
}

// rowOf returns the row of a record: the first one that it fits.
func rowOf(e *audit.Event) *mappingRow {
	if e.Validate() == nil {
		for i := range mapping {
			if row := &mapping[i]; row.fits(e) {
				return row
			}
		}
	}
	return &mappingRow{Class: lifecycle, Activity: activity{other, string(e.Kind)}, fill: fillApp} // of a newer Metsuke
}

func (row *mappingRow) fits(e *audit.Event) bool {
	return row.Kind == e.Kind && (row.Calls == nil || slices.Contains(row.Calls, e.Syscall.Syscall)) && (row.is == nil || row.is(e))
}

func calls(names string) []string { return strings.Fields(names) }

const (
	pathRead   = "its path could be read"
	onePID     = "`pid` is above 0"
	openCalls  = "open openat openat2"
	fatalWords = "SIGKILL SIGTERM SIGINT SIGQUIT SIGHUP SIGABRT"
)

// mapping is the mapping: docs/ocsf.md has it as a table.
var mapping = []mappingRow{
	{audit.KindSyscall, calls("execve execveat"), pathRead, processActivity, activity{1, "Launch"}, hasPath("path"), fillExec},
	{audit.KindSyscall, calls("fork vfork clone clone3"), "", processActivity, activity{1, "Launch"}, nil, fillFork},
	{audit.KindSyscall, calls("setuid setreuid setresuid setfsuid setuid32 setreuid32 setresuid32 setfsuid32"), "", processActivity, activity{5, "Set User ID"}, nil, fillOwnProcess},
	{audit.KindSyscall, calls("kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"), onePID + ", and `signal` is one of `" + fatalWords + "`", processActivity, activity{2, "Terminate"}, isFatal, fillTarget},
	{audit.KindSyscall, calls("ptrace"), onePID, processActivity, activity{3, "Open"}, hasTarget, fillTarget},
	{audit.KindSyscall, calls("process_vm_readv"), onePID, memoryActivity, activity{7, "Read"}, hasTarget, fillTarget},
	{audit.KindSyscall, calls("process_vm_writev"), onePID, memoryActivity, activity{8, "Write"}, hasTarget, fillTarget},
	{audit.KindSyscall, calls("mmap mmap2"), "", memoryActivity, activity{1, "Allocate Page"}, nil, fillMemory},
	{audit.KindSyscall, calls("mprotect pkey_mprotect"), "", memoryActivity, activity{2, "Modify Page"}, nil, fillMemory},

	{audit.KindSyscall, calls(openCalls), pathRead + ", and `flags` has `O_CREAT`", fileActivity, activity{1, "Create"}, opens("O_CREAT"), fillFile("path")},
	{audit.KindSyscall, calls(openCalls), pathRead + ", and `flags` has `O_TRUNC`", fileActivity, activity{3, "Update"}, opens("O_TRUNC"), fillFile("path")},
	{audit.KindSyscall, calls(openCalls + " uselib"), pathRead, fileActivity, activity{14, "Open"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("creat mkdir mkdirat mknod mknodat link linkat symlink symlinkat"), pathRead, fileActivity, activity{1, "Create"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("truncate truncate64"), pathRead, fileActivity, activity{3, "Update"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("unlink unlinkat rmdir"), pathRead, fileActivity, activity{4, "Delete"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("rename renameat renameat2"), pathRead, fileActivity, activity{5, "Rename"}, hasPath("from"), fillRename},
	{audit.KindSyscall, calls("chmod fchmodat fchmodat2 chown lchown fchownat chown32 lchown32"), pathRead, fileActivity, activity{7, "Set Security"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("utime utimes futimesat utimensat utimensat_time64 file_setattr setxattr lsetxattr setxattrat removexattr lremovexattr removexattrat"), pathRead, fileActivity, activity{6, "Set Attributes"}, hasPath("path"), fillFile("path")},
	{audit.KindSyscall, calls("mount"), pathRead, fileActivity, activity{12, "Mount"}, hasPath("target"), fillFile("target")},
	{audit.KindSyscall, calls("umount umount2"), pathRead, fileActivity, activity{13, "Unmount"}, hasPath("target"), fillFile("target")},

	{audit.KindSyscall, calls("connect"), "", networkActivity, activity{1, "Open"}, nil, fillOutbound},
	{audit.KindSyscall, calls("sendto sendmsg sendmmsg"), "", networkActivity, activity{6, "Traffic"}, nil, fillOutbound},
	{audit.KindSyscall, calls("accept accept4"), "", networkActivity, activity{1, "Open"}, nil, fillInbound},
	{audit.KindSyscall, calls("bind"), "", networkActivity, activity{other, "Bind"}, nil, fillBind},
	{audit.KindSyscall, calls("listen"), "", networkActivity, activity{7, "Listen"}, nil, fillBind},

	{audit.KindSyscall, nil, "", kernelActivity, activity{4, "Invoke"}, nil, fillKernel},

	{audit.KindStart, nil, "", lifecycle, activity{3, "Start"}, nil, fillStart},
	{audit.KindExec, nil, "", processActivity, activity{1, "Launch"}, nil, fillSession},
	{audit.KindLimit, nil, "", lifecycle, activity{other, "Limit Lowered"}, nil, fillLimit},
	{audit.KindOOM, nil, "", applicationError, activity{1, "General Error"}, nil, fillOOM},
	{audit.KindLoss, nil, "", eventLogActivity, activity{other, "Loss"}, nil, fillLoss},
	{audit.KindExit, nil, "of an exec session", processActivity, activity{2, "Terminate"}, func(e *audit.Event) bool { return e.Exec != "" }, fillExit},
	{audit.KindExit, nil, "", lifecycle, activity{4, "Stop"}, nil, fillExit},
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
