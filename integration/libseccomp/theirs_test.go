// SPDX-License-Identifier: Apache-2.0

//go:build seccomp && linux && amd64 && cgo

package libseccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	runcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/seccomp"
)

// What this binary does in a child process: load runc's filter for the profile on its standard input, or be the
// victim of a filter of ours.
const (
	roleVariable = "METSUKE_LIBSECCOMP_ROLE"
	roleLoad     = "load"
	roleVictim   = "victim"
)

func init() {
	if os.Getenv(roleVariable) != "" {
		runtime.LockOSThread() // the filter is the thread's, and the parent traces the first one
	}
}

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleLoad:
		loadTheirs()
	case roleVictim:
		victim()
	}
	os.Exit(m.Run())
}

// maxCPU is how long a child may compute, in seconds: a hundred times what it needs. libseccomp loops on some profiles.
const maxCPU = 3

// loadTheirs does what runc's init does. The parent sees the filter go into the kernel and ends the process then.
func loadTheirs() {
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: maxCPU, Max: maxCPU}); err != nil {
		fail(err)
	}
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal(raw, &profile); err != nil {
		fail(err)
	}
	config, err := specconv.SetupSeccomp(&profile)
	if err != nil {
		fail(err)
	}
	if config == nil {
		fail(errUnconfined)
	}
	if _, err := runcseccomp.InitSeccomp(config); err != nil {
		fail(err)
	}
	fail(errors.New("the parent did not stop me"))
}

var errUnconfined = errors.New("unconfined")

func fail(err error) {
	fmt.Fprint(os.Stderr, err)
	os.Exit(3)
}

// theirs is a filter as the kernel has it.
type theirs struct {
	vm    *bpf.VM
	code  []unix.SockFilter
	flags uint64
}

// errHung: libseccomp did not come back with a filter.
var errHung = errors.New("libseccomp loops")

// errRefused is an error of runc or libseccomp about a profile.
type errRefused struct{ reason string }

func (e errRefused) Error() string { return e.reason }

// load has a child load runc's filter for a profile, and reads it back from the kernel.
func load(profile *specs.LinuxSeccomp) (*theirs, error) {
	runtime.LockOSThread() // ptrace: the tracer is a thread
	defer runtime.UnlockOSThread()
	raw, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	if profile.Flags != nil && len(profile.Flags) == 0 { // an empty list is not an absent one, but is omitted
		raw = append(raw[:len(raw)-1], `,"flags":[]}`...)
	}
	cmd := exec.Command("/proc/self/exe")
	// with LD_LIBRARY_PATH another libseccomp than the installed one can be tried
	cmd.Env = []string{roleVariable + "=" + roleLoad, "GODEBUG=asyncpreemptoff=1", "GOGC=off", "LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH")}
	cmd.Stdin = bytes.NewReader(raw)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	got, err := trace(cmd.Process.Pid)
	if got != nil || err != nil {
		_ = cmd.Process.Kill()
	}
	waitErr := cmd.Wait()
	switch {
	case err != nil:
		return nil, err
	case got != nil:
		return got, nil
	case waitErr != nil && waitErr.Error() == "signal: killed": // by the kernel, at maxCPU
		return nil, errHung
	case stderr.Len() > 0:
		return nil, errRefused{stderr.String()}
	}
	return nil, fmt.Errorf("the child ended without a filter: %w", waitErr)
}

// trace follows a child from its exec to the call that loads a filter; nil, nil if it ended before.
func trace(pid int) (*theirs, error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return nil, fmt.Errorf("wait for exec: %w", err)
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return nil, fmt.Errorf("ptrace options: %w", err)
	}
	entering := true
	var flags uint64
	loading := false
	for signal := 0; ; {
		if err := unix.PtraceSyscall(pid, signal); err != nil {
			return nil, nil //nolint:nilerr // it is gone; its exit status says why
		}
		// WNOWAIT would be needed to leave the exit status to cmd.Wait: peek first
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
			return nil, fmt.Errorf("wait: %w", err)
		}
		if info.Code != 4 && info.Code != 5 { // CLD_TRAPPED, CLD_STOPPED
			return nil, nil
		}
		if _, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil); err != nil {
			return nil, fmt.Errorf("wait: %w", err)
		}
		signal = 0
		if status.StopSignal() != unix.SIGTRAP|0x80 {
			if status.StopSignal() != unix.SIGTRAP {
				signal = int(status.StopSignal())
			}
			continue
		}
		var regs unix.PtraceRegs
		if err := unix.PtraceGetRegs(pid, &regs); err != nil {
			return nil, fmt.Errorf("registers: %w", err)
		}
		if entering {
			// with a null pointer it is libseccomp asking what the kernel knows
			loading, flags = regs.Rdx != 0, 0
			switch {
			case regs.Orig_rax == unix.SYS_PRCTL && regs.Rdi == unix.PR_SET_SECCOMP && regs.Rsi == unix.SECCOMP_MODE_FILTER:
			case regs.Orig_rax == unix.SYS_SECCOMP && regs.Rdi == unix.SECCOMP_SET_MODE_FILTER:
				flags = regs.Rsi
			default:
				loading = false
			}
		} else if loading && int64(regs.Rax) >= 0 {
			return dump(pid, flags)
		}
		entering = !entering
	}
}

func dump(pid int, flags uint64) (*theirs, error) {
	n, err := getFilter(pid, nil)
	if err != nil {
		return nil, fmt.Errorf("size of the filter: %w", err)
	}
	code := make([]unix.SockFilter, n)
	if _, err := getFilter(pid, code); err != nil {
		return nil, fmt.Errorf("the filter: %w", err)
	}
	vm, err := newVM(code)
	return &theirs{vm, code, flags}, err
}

// newVM makes an interpreter; it takes the words of seccomp_data big-endian.
func newVM(code []unix.SockFilter) (*bpf.VM, error) {
	raw := make([]bpf.RawInstruction, len(code))
	for i, in := range code {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		return nil, errors.New("instructions that x/net/bpf does not know")
	}
	return bpf.NewVM(ins)
}

func ourVM(p *seccomp.Program) (*bpf.VM, error) { return newVM(sockFilter(p)) }

func sockFilter(p *seccomp.Program) []unix.SockFilter {
	var code []unix.SockFilter
	for _, in := range p.Filter() {
		code = append(code, unix.SockFilter{Code: in.Code, Jt: in.JT, Jf: in.JF, K: in.K})
	}
	return code
}
