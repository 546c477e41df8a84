// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the rules of the tree that the compiler does not: which package may import which, and
// how files are cut. They are an ordinary test; rules_test.go has them in tables, each with its reason.
package archtest
