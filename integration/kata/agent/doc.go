// SPDX-License-Identifier: Apache-2.0

// Command agent is a stand-in for the guest agent of Kata Containers, for tests: process 1 of the guests of Metsuke's stand. It
// is not Kata's, has none of its code, and is for nothing else. It exists because Kata's own agent, a Rust program, is in no
// package registry, and serves a vsock, which not every machine can give to a guest.
//
// It speaks the agent's protocol on the virtio-serial port "agent.0", and does to a container what the agent of Kata 4.1.0
// does, as far as Metsuke could tell the difference: each such behaviour is in a comment that names Kata's file, and in a
// test, those that need a guest in package conformance. It says "agent: ready" on the console when it serves.
//
// The kernel's command line may say standin.policy= and deny-create, deny-exec, blank-output or several with commas: see
// [metsuke.dev/metsuke/integration/kata/agent/rpc.Policy]. With standin.eth0=ADDRESS/PREFIX or
// standin.eth0=ADDRESS/PREFIX,GATEWAY the guest has a network.
//
// # Where it differs
//
// It runs containers with runc instead of a jail of its own, and has only what the stand's shim asks for:
//
//	behaviour                     Kata's agent 4.1.0                      stand-in
//	transport                     vsock, or a unix socket                 virtio-serial port agent.0
//	root file system, shared      the shim sends a storage, or pulls      bound from the tag kataShared, unknown to the shim
//	end of stdout, stderr         an empty answer                         an error, as before 4.x: the stand's shim is a 3.x
//	filter that does not convert  panics, and never answers               fails at once, with the same words
//	filter with SCMP_ACT_NOTIFY   loads it; nobody serves the listener    refused
//	filter's default action       as it is                                runc adds ENOSYS for calls newer than the profile
//	filter's flags, none sent     none                                    runc adds SPEC_ALLOW if it can
//	cgroup namespace              each process makes one                  runc makes one, execs join it; rooted alike
//	resources                     set before the mounts                   set after them, before the first process may run
//	blockIO, hugepages, network   set                                     ignored: no shim sends them
//	device cgroup                 none on v2 for what the shims send      none
//	exec, if <cgroup>/init is     put there                               put into the container's cgroup
//	program that is not there     "the file NAME was not found", at Create  runc's words, at Create
//	masked directory              is not masked                           masked: runc mounts an empty tmpfs
//	cwd that is missing           an error                                runc makes it
//	link at a bind's destination  followed inside the root                the same; but then a file there is not truncated
//	exec in a paused container    hangs until it is resumed               an error
//	end of a container            kills what is in its own cgroup         kills what is in cgroups below it too, in the sandbox's pid namespace
//	cgroup of a container         cgroupfs, or systemd's                  cgroupfs
//	storages                      many drivers, counted, unmounted        ephemeral and local, which stay
//	devices, CDI, hooks           handled                                 ignored; what has an RPC of its own: unimplemented
//	network                       by UpdateInterface, UpdateRoutes        by the kernel's command line: standin.eth0
//	second CreateSandbox          starts anew                             an error
//	DestroySandbox                the agent ends, and with it the guest   the guest waits to be stopped
//	GetMetrics                    dozens                                  two gauges
//	SetPolicy                     absent, or the agent's policy engine    absent; three switches of the command line
package main
