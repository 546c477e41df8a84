// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64 && !(seccomp && cgo)

package libseccomp

import "testing"

// TestTag: without the tag this package has no tests, which must not pass for their success.
func TestTag(t *testing.T) {
	t.Fatal("these tests need cgo, libseccomp-dev and the tag: go test -tags seccomp ./...")
}
