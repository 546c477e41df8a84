// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"testing"

	"metsuke.dev/metsuke/seccomp"
)

// What baseline means, call by call, decided by the compiled program on both architectures.
func TestBaselineDecides(t *testing.T) {
	r := resolve(t, load(t, ""), Baseline)
	const eperm, enosys, eafnosupport = 1, 38, 97
	for _, a := range []seccomp.Arch{seccomp.ArchAMD64, seccomp.ArchARM64} {
		p, err := seccomp.Compile(r.Policy(a, nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			call   string
			args   [6]uint64
			action seccomp.Action
			errno  uint16
			rule   string
		}{
			{"openat", [6]uint64{0, 0, 0x241}, seccomp.ActionAllow, 0, ""},
			{"read", [6]uint64{}, seccomp.ActionAllow, 0, ""},
			{"execve", [6]uint64{}, seccomp.ActionAudit, 0, "exec"},
			{"connect", [6]uint64{}, seccomp.ActionAudit, 0, "net"},
			{"setuid", [6]uint64{}, seccomp.ActionAudit, 0, "privilege"},
			{"ptrace", [6]uint64{}, seccomp.ActionDeny, eperm, "no-ptrace"},
			{"process_vm_readv", [6]uint64{}, seccomp.ActionDeny, eperm, "no-foreign-memory"},
			{"mount", [6]uint64{}, seccomp.ActionDeny, eperm, "no-mount"},
			{"fsopen", [6]uint64{}, seccomp.ActionDeny, eperm, "no-mount"},
			{"open_tree", [6]uint64{}, seccomp.ActionDeny, eperm, "no-mount"},
			{"clone3", [6]uint64{}, seccomp.ActionDeny, enosys, "no-clone3"},
			{"clone", [6]uint64{0x1200011}, seccomp.ActionAllow, 0, ""}, // fork
			{"clone", [6]uint64{0x3d0f00}, seccomp.ActionAllow, 0, ""},  // a thread
			{"clone", [6]uint64{0x4111}, seccomp.ActionAllow, 0, ""},    // vfork
			{"clone", [6]uint64{0x10000011}, seccomp.ActionDeny, eperm, "no-namespaces"},
			{"clone", [6]uint64{0x20011}, seccomp.ActionDeny, eperm, "no-namespaces"},
			{"unshare", [6]uint64{0x400}, seccomp.ActionAllow, 0, ""}, // CLONE_FILES
			{"unshare", [6]uint64{0x80}, seccomp.ActionDeny, eperm, "no-namespaces"},
			{"unshare", [6]uint64{0x10000400}, seccomp.ActionDeny, eperm, "no-namespaces"},
			{"setns", [6]uint64{3}, seccomp.ActionDeny, eperm, "no-setns"},
			{"io_uring_setup", [6]uint64{}, seccomp.ActionDeny, eperm, "no-io-uring"},
			{"bpf", [6]uint64{}, seccomp.ActionDeny, eperm, "no-bpf"},
			{"keyctl", [6]uint64{}, seccomp.ActionDeny, eperm, "no-keyring"},
			{"finit_module", [6]uint64{}, seccomp.ActionDeny, eperm, "no-modules"},
			{"memfd_secret", [6]uint64{}, seccomp.ActionDeny, eperm, "no-secret-memory"},
			{"memfd_create", [6]uint64{}, seccomp.ActionAllow, 0, ""},
			{"clock_settime", [6]uint64{}, seccomp.ActionDeny, eperm, "no-clock"},
			{"clock_gettime", [6]uint64{}, seccomp.ActionAllow, 0, ""},
			{"mknodat", [6]uint64{0, 0, 0o20644}, seccomp.ActionDeny, eperm, "no-device-nodes-at"},
			{"mknodat", [6]uint64{0, 0, 0o60644}, seccomp.ActionDeny, eperm, "no-device-nodes-at"},
			{"mknodat", [6]uint64{0, 0, 0o10644}, seccomp.ActionAllow, 0, ""},  // FIFO
			{"mknodat", [6]uint64{0, 0, 0o100644}, seccomp.ActionAllow, 0, ""}, // regular
			{"mknodat", [6]uint64{0, 0, 0o140644}, seccomp.ActionAllow, 0, ""}, // socket
			{"mknodat", [6]uint64{0, 0, 0o644}, seccomp.ActionAllow, 0, ""},
			{"personality", [6]uint64{0xffffffff}, seccomp.ActionAllow, 0, ""},
			{"personality", [6]uint64{^uint64(0)}, seccomp.ActionAllow, 0, ""}, // the kernel takes 32 bits
			{"personality", [6]uint64{0x20008}, seccomp.ActionAllow, 0, ""},
			{"personality", [6]uint64{0x40000}, seccomp.ActionDeny, eperm, "no-personality"},
			{"ioctl", [6]uint64{0, 0x5412}, seccomp.ActionDeny, eperm, "no-terminal-input"},
			{"ioctl", [6]uint64{0, 0x1_0000_5412}, seccomp.ActionDeny, eperm, "no-terminal-input"},
			{"ioctl", [6]uint64{0, 0x5413}, seccomp.ActionAllow, 0, ""}, // TIOCGWINSZ
			{"socket", [6]uint64{1, 1}, seccomp.ActionAllow, 0, ""},
			{"socket", [6]uint64{2, 1}, seccomp.ActionAudit, 0, "net-socket"},
			{"socket", [6]uint64{16, 3}, seccomp.ActionAudit, 0, "net-socket"},
			{"socket", [6]uint64{40, 1}, seccomp.ActionDeny, eafnosupport, "no-rare-sockets"},
			{"socket", [6]uint64{38, 5}, seccomp.ActionDeny, eafnosupport, "no-rare-sockets"},
			{"socket", [6]uint64{0x1_0000_0028, 1}, seccomp.ActionDeny, eafnosupport, "no-rare-sockets"},
		} {
			nr, ok := seccomp.SyscallNumber(a, c.call)
			if !ok {
				continue
			}
			d := p.Decide(&seccomp.Data{Nr: int32(nr), Arch: a, Args: c.args})
			if d.Silent {
				d.Action = seccomp.ActionAllow
			}
			if d.Action != c.action || d.Errno != c.errno || d.RuleID != c.rule {
				t.Errorf("%s %s(%#x, %#x, %#x): %s errno %d rule %q, want %s %d %q", a.Name(), c.call, c.args[0], c.args[1], c.args[2],
					d.Action, d.Errno, d.RuleID, c.action, c.errno, c.rule)
			}
		}
	}
}

func TestBaselineRefusesForeignABIs(t *testing.T) {
	p, err := seccomp.Compile(resolve(t, load(t, ""), Baseline).Policy(seccomp.ArchAMD64, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []seccomp.Data{{Nr: 3, Arch: seccomp.Arch386}, {Nr: 0x40000000, Arch: seccomp.ArchAMD64}} {
		if got := p.Decide(&d); got.Action != seccomp.ActionDeny || got.Errno != 38 || got.Origin != Baseline {
			t.Errorf("%+v: %+v", d, got)
		}
	}
}

// The workload's own listeners are refused by every profile, whatever it allows: also in the foreign ABIs that one permits.
func TestOneListener(t *testing.T) {
	const setModeFilter, newListener, ebusy = 1, 8, 16
	open := &Resolved{Name: "open", Layers: []seccomp.Layer{{
		Name: "open", Default: seccomp.ActionAllow, Architectures: []seccomp.Arch{seccomp.Arch386, seccomp.ArchX32, seccomp.ArchARM},
		Allow: []seccomp.Rule{{ID: "all", Syscalls: []string{"seccomp"}}},
	}}}
	for name, r := range map[string]*Resolved{"baseline": resolve(t, load(t, ""), Baseline), "open": open, "empty": {Name: "empty"}} {
		for _, native := range []seccomp.Arch{seccomp.ArchAMD64, seccomp.ArchARM64} {
			p, err := seccomp.Compile(r.Policy(native, nil))
			if err != nil {
				t.Fatal(err)
			}
			for _, abi := range []seccomp.Arch{seccomp.ArchAMD64, seccomp.ArchX32, seccomp.Arch386, seccomp.ArchARM64, seccomp.ArchARM} {
				nr, _ := seccomp.SyscallNumber(abi, "seccomp")
				arch := abi
				if abi == seccomp.ArchX32 {
					arch = seccomp.ArchAMD64
				}
				if name == "baseline" && abi != native || (native == seccomp.ArchARM64) != (abi == seccomp.ArchARM64 || abi == seccomp.ArchARM) {
					continue // refused anyway, or not of this kernel
				}
				for _, args := range [][6]uint64{{setModeFilter, newListener, 4096}, {setModeFilter | 1<<32, newListener | 1<<5 | 1<<40, 4096}} {
					got := p.Decide(&seccomp.Data{Nr: int32(nr), Arch: arch, Args: args})
					if got.Action != seccomp.ActionDeny || got.Errno != ebusy || got.RuleID != "one-listener" || got.Origin != "metsuke" {
						t.Errorf("%s, %s on %s, %#x: %+v", name, abi.Name(), native.Name(), args, got)
					}
				}
				for _, args := range [][6]uint64{{setModeFilter, 1, 4096}, {setModeFilter, newListener, 0}} {
					if got := p.Decide(&seccomp.Data{Nr: int32(nr), Arch: arch, Args: args}); got.Action == seccomp.ActionDeny {
						t.Errorf("%s, %s, %#x, a plain filter or a question, is refused: %+v", name, abi.Name(), args, got)
					}
				}
			}
		}
	}
}

// The reasons are the documentation.
func TestBuiltinsGiveReasons(t *testing.T) {
	s := load(t, "")
	for k, source := range resolve(t, s, Baseline).Provenance.Rules {
		if source.Reason == "" || source.Line == 0 {
			t.Errorf("%v has no reason", k)
		}
	}
	for name, p := range s.profiles {
		if p.description == "" {
			t.Errorf("%s has no description", name)
		}
	}
}
