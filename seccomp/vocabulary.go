// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// OpInfo describes one operator of the vocabulary.
type OpInfo struct {
	Op  Op
	OCI specs.LinuxSeccompOperator
	Doc string
}

// KnownOps returns every operator that a condition can use.
func KnownOps() []OpInfo {
	return []OpInfo{
		{OpEqual, specs.OpEqualTo, "the argument equals value"},
		{OpNotEqual, specs.OpNotEqual, "the argument differs from value"},
		{OpLess, specs.OpLessThan, "the argument, unsigned, is less than value"},
		{OpLessEqual, specs.OpLessEqual, "the argument, unsigned, is at most value"},
		{OpGreater, specs.OpGreaterThan, "the argument, unsigned, is greater than value"},
		{OpGreaterEqual, specs.OpGreaterEqual, "the argument, unsigned, is at least value"},
		{OpMaskedEqual, specs.OpMaskedEqual, "the argument's bits in mask equal value"},
	}
}

// ParseOp takes our name of an operator ("masked_eq") or the OCI one ("SCMP_CMP_MASKED_EQ").
func ParseOp(name string) (Op, error) {
	var names []string
	for _, k := range KnownOps() {
		if string(k.Op) == name || string(k.OCI) == name {
			return k.Op, nil
		}
		names = append(names, string(k.Op))
	}
	return "", fmt.Errorf("unknown operator %q: known are %s", name, strings.Join(names, ", "))
}

// ActionInfo describes one action of the vocabulary.
type ActionInfo struct {
	Action Action
	Name   string
	OCI    specs.LinuxSeccompAction // the nearest, for people who know those
	Doc    string
}

// KnownActions returns every action, in order of strictness.
func KnownActions() []ActionInfo {
	return []ActionInfo{
		{ActionAllow, "allow", specs.ActAllow, "the call goes on; the kernel decides, nothing is written"},
		{ActionAudit, "audit", specs.ActNotify, "an event is written, then the call goes on"},
		{ActionDeny, "deny", specs.ActErrno, "an event is written, the call is not made and returns an errno"},
		{ActionKill, "kill", specs.ActKillProcess, "an event is written, the call is not made and its process is killed"},
	}
}

// String returns the action's name in the vocabulary.
func (a Action) String() string {
	for _, k := range KnownActions() {
		if k.Action == a {
			return k.Name
		}
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// PodActionInfo describes what becomes of an action of a pod's own profile.
type PodActionInfo struct {
	OCI     specs.LinuxSeccompAction
	Carried bool
	Doc     string
}

// KnownPodActions returns every action of the OCI specification and whether a pod's profile may use it.
func KnownPodActions() []PodActionInfo {
	return []PodActionInfo{
		{specs.ActAllow, true, "allowed, unless a layer decides otherwise"},
		{specs.ActLog, true, "allowed and logged by the kernel, unless a layer or the audit decides otherwise"},
		{specs.ActErrno, true, "denied with its errno; the denial is an event of origin `pod`"},
		{specs.ActTrap, true, "SIGSYS from the kernel"},
		{specs.ActKill, true, "the kernel kills the thread (the same as SCMP_ACT_KILL_THREAD)"},
		{specs.ActKillThread, true, "the kernel kills the thread"},
		{specs.ActKillProcess, true, "the kernel kills the process"},
		{specs.ActTrace, false, "refused: the tracer it needs would have to be ours"},
		{specs.ActNotify, false, "refused: the kernel allows one listener in a process tree, and it is ours"},
	}
}
