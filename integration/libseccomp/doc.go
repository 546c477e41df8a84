// SPDX-License-Identifier: Apache-2.0

// Package libseccomp holds the tests that compare package seccomp with runc and libseccomp, and that load its
// filters. It is a module of its own, for these are what it needs and the product does not: cgo, runc, libseccomp.
//
//	apt-get install libseccomp-dev && go test -tags seccomp ./...
//
// They need root (a filter without no_new_privs) and x86-64.
package libseccomp
