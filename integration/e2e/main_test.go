// SPDX-License-Identifier: Apache-2.0

// Package e2e runs pods under a real containerd, of each version, with the delegate alone and through Metsuke.
//
// TestMain puts the test binary into the stand's namespaces. A test calls [eachVersion], and in it makes pods; when it
// ends, its pods are removed, and anything that they leave behind fails it.
package e2e

import (
	"os"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

func TestMain(m *testing.M) {
	stand.Enter("containerd2", "containerd1", "runc", "cni")
	os.Exit(closeStands(m.Run()))
}
