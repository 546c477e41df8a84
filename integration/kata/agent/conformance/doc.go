// SPDX-License-Identifier: Apache-2.0

// Package conformance holds the tests that ask an agent, over its own protocol, for the behaviours of Kata's that Metsuke
// depends on. They boot a guest in QEMU with the stand-in, without containerd and without Kata's shim.
//
//	go test ./agent/conformance
//
// With METSUKE_KATA_AGENT_SOCKET they ask whatever agent answers at that unix socket, such as Kata's own behind a proxy to
// its vsock, so that one can see whether the stand-in tells the truth. That agent must not have been asked for a sandbox yet.
package conformance
