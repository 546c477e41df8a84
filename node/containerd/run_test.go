// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"testing"

	"metsuke.dev/metsuke/node/tree"
)

// What a program prints is bounded, whatever it is.
func TestOutputIsBounded(t *testing.T) {
	root, err := tree.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	shell := New(root, "/bin/sh", "/none")
	if out, err := shell.run(t.Context(), "-c", "head -c 1000 /dev/zero"); err != nil || len(out) != 1000 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if out, err := shell.run(t.Context(), "-c", "head -c 100000000 /dev/zero"); err == nil { // it ends at a pipe that nobody reads
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
