// SPDX-License-Identifier: Apache-2.0

// Package powerloss has only tests. They write audit streams to a file system that knows what was synced, have its power fail after each of
// its operations, and see what becomes of the streams. It is a module of its own, so that the library for file systems in user space stays
// out of Metsuke's.
package powerloss
