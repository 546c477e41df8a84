// SPDX-License-Identifier: Apache-2.0

// Package e2e runs pods under a real containerd, of each version, with the delegate alone and through Metsuke.
//
// The environment says what the tests run on: METSUKE_DELEGATE is runc (the default) or kata, METSUKE_PLACEMENT is where
// supervisors run, host or guest (default: what Metsuke does by itself).
//
// TestMain puts the test binary into the stand's namespaces. A test calls [eachVersion], and in it makes pods; when it
// ends, its pods are removed, and anything that they leave behind fails it.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

// What the environment says.
var (
	delegate  *stand.Delegate
	placement = stand.Placement(os.Getenv("METSUKE_PLACEMENT"))
)

func TestMain(m *testing.M) {
	var err error
	if delegate, err = stand.DelegateNamed(os.Getenv("METSUKE_DELEGATE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stand.Enter(append(delegate.Tools(), "containerd2", "containerd1", "cni")...)
	if delegate == stand.Kata {
		fmt.Printf("these tests run on %s\n", delegate.About()) // whether they pass or not; see docs/kata-stand.md
	}
	os.Exit(closeStands(m.Run()))
}
