// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"slices"
	"testing"

	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

// The flags of clone and unshare that make namespaces, and of them those that Chromium's sandbox is made of.
const (
	newNS, newCgroup, newUTS, newIPC, newUser, newPID, newNet = 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000

	chromium = newUser | newPID | newNet
)

// The profile for browsers with a sandbox of their own repeats baseline's rules. It denies all that baseline denies, with the same
// error, but for what that sandbox is made of.
func TestOwnSandboxIsAsBaseline(t *testing.T) {
	set := exampleSet(t)
	compiled := func(name string) (*profile.Resolved, *seccomp.Program) {
		r, err := set.Resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := seccomp.Compile(r.Policy(seccomp.ArchAMD64, nil))
		if err != nil {
			t.Fatal(err)
		}
		return r, p
	}
	resolved, baseline := compiled(profile.Baseline)
	_, own := compiled("browser-own-sandbox")
	denied, lifted := 0, 0
	for _, rule := range resolved.Layers[0].Deny {
		for _, call := range rule.Syscalls {
			nr, ok := seccomp.SyscallNumber(seccomp.ArchAMD64, call)
			if !ok {
				continue // a call of other architectures
			}
			for _, args := range samples(rule) {
				data := &seccomp.Data{Nr: int32(nr), Arch: seccomp.ArchAMD64, Args: args}
				want := baseline.Decide(data)
				if want.Action != seccomp.ActionDeny {
					continue
				}
				denied++
				if call == "chroot" || (call == "clone" || call == "unshare") && args[0]&^chromium == 0 {
					lifted++
					want = seccomp.Decision{}
				}
				if got := own.Decide(data); (got.Action >= seccomp.ActionDeny) != (want.Action >= seccomp.ActionDeny) || got.Errno != want.Errno {
					t.Errorf("%s(%#x, %#x, %#x): %+v, want %+v", call, args[0], args[1], args[2], got, want)
				}
			}
		}
	}
	if denied < 500 || lifted < 10 {
		t.Errorf("%d calls are denied by baseline, and %d of them lifted: the samples say little", denied, lifted)
	}
}

// samples are arguments of a rule's calls: those that its conditions name, and without any, first arguments of all kinds.
func samples(rule seccomp.Rule) (all [][6]uint64) {
	if len(rule.Args) > 0 {
		var args [6]uint64
		for _, c := range rule.Args {
			args[c.Index] = c.Value
		}
		return [][6]uint64{args}
	}
	first := []uint64{0, 8, 0x11, 0x20000 | 8, 0x40000, 0x400000, 0xffffffff, ^uint64(0), 0x80, chromium, chromium | newNS}
	for domain := range uint64(48) {
		first = append(first, domain)
	}
	for _, flag := range []uint64{newNS, newCgroup, newUTS, newIPC, newUser, newPID, newNet} {
		first = append(first, flag, flag|newUser)
	}
	slices.Sort(first)
	for _, v := range slices.Compact(first) {
		all = append(all, [6]uint64{v})
	}
	return all
}
