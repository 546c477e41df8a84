// SPDX-License-Identifier: Apache-2.0

// Package parity has no code but tests. They run containers and exec sessions under runc, each once
// alone and once by way of the launcher, and hold that the workload cannot tell the difference, but
// for the filter.
//
// METSUKE_PLACEMENT, host (the default) or guest, says how the capabilities of what is run are widened.
//
// They need root, a C compiler with a static libc, and runc: the path in METSUKE_RUNC, or runc in
// PATH. None of these missing skips a test; it fails.
package parity
