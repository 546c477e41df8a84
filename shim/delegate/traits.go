// SPDX-License-Identifier: Apache-2.0

package delegate

import "metsuke.dev/metsuke/cgroups"

// Traits are the facts of a family of delegates that Metsuke acts on. What differs between delegates is in this one
// table; code asks for a trait and never for a name.
type Traits struct {
	Name string // for errors and logs

	// HostPIDs says that the pids which it reports are processes of the node's kernel. Others report one process, the VMM,
	// for everything.
	HostPIDs bool

	// Sandboxed says that a pod runs in a VM, which is sized when the pod is made, and in which annotations can change
	// what we rely on. Its cgroups are those of a guest, in the form of cgroup v2.
	Sandboxed bool

	// ExecDrops says that of an exec's process only args, env, cwd, user and terminal arrive. Capabilities become the
	// container's; no_new_privs, resource limits and the OOM score are lost, and the launcher restores them.
	ExecDrops bool

	// NeedsResources says that linux.resources must not be null, nor process.capabilities.
	NeedsResources bool

	// CloseIOWaits says that a CloseIO holds up every other call until the stdin FIFO has no writer.
	CloseIOWaits bool

	// FreezeWaits says that a Pause waits until the container's cgroup is frozen, and if that does not come about leaves it such that
	// nothing can be done with the container any more.
	FreezeWaits bool

	// LimitsDropped are the limits, by their names in package cgroups, that never reach the container's cgroup, or that
	// an Update lifts, whatever it is about. The resident puts them in force, at its start and after each Update.
	LimitsDropped []string

	// LimitsForeign are the limits that speak of the node's CPUs and devices, which a guest does not have: nobody can
	// put them in force for one container.
	LimitsForeign []string
}

// Traits returns what is known of the delegate's family: runc's, or Kata's for every other type, since package config
// takes no third.
func (c Config) Traits() Traits {
	if c.RuntimeType == RuncType {
		return runc
	}
	return kata
}

var runc = Traits{
	Name: "runc", HostPIDs: true,

	// opencontainers/cgroups, fs2/freezer.go: waitFrozen; what is written by then stays (cgroup v2).
	FreezeWaits: true,
}

// kata holds for both of Kata's runtimes, the Go one and runtime-rs, from 3.x to 4.1. They share runtime type and
// binary name; only the words "(Golang)" and "(Rust)" in the output of --version tell them apart. We do not ask: where
// they differ the trait is the worse of the two, and restoring what was not lost changes nothing.
//
// Sources, in the tree of Kata 4.1.0 (src/runtime is the Go runtime):
var kata = Traits{
	Name: "Kata",

	// src/runtime/pkg/containerd-shim-v2/service.go: State, Pids and Connect answer with the VMM's pid.
	HostPIDs:  false,
	Sandboxed: true,

	// Go: exec.go takes no more from the request, and virtcontainers/kata_agent.go (buildProcessFromExecID) sends no
	// more. runtime-rs drops the capabilities alone (container_manager/manager.rs). The agent then gives the process the
	// container's capabilities (src/agent/rustjail/src/container.rs).
	ExecDrops: true,

	// Go: pkg/oci/utils.go dereferences linux.resources. The agent refuses a process without capabilities.
	NeedsResources: true,

	// Go: pkg/containerd-shim-v2/service.go, CloseIO, waits with the service's lock held.
	CloseIOWaits: true,

	// pids: both runtimes take it out at Create (kata_agent.go constrainGRPCSpec, container_manager/container.rs), and at
	// each Update trans.rs (src/libs/protocols/src) turns an absent one into zero, which fs/mod.rs writes as "max".
	// memoryHigh: linux.resources.unified is not in the agent's protocol (oci.proto).
	// swap: the agent takes a limit of zero for no limit (rustjail/src/cgroups/fs/mod.rs set_memory_resources).
	LimitsDropped: []string{cgroups.Pids, cgroups.MemoryHigh, cgroups.Swap}, // pids first: the others may take the kernel a while

	// Both runtimes blank cpu.cpus and drop blockIO. The host's cpuset cgroup of the whole VM remains, shared by the
	// pod's containers; and a file system that comes by virtio-fs has no block device in the guest.
	LimitsForeign: []string{cgroups.CPUSet, cgroups.IO},
}
