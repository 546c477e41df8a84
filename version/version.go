// SPDX-License-Identifier: Apache-2.0

// Package version says which build of Metsuke this is.
package version

import "runtime/debug"

// version is set by the linker: -X metsuke.dev/metsuke/version.version=v1.2.3.
var version string

// String returns the version of this build, "devel" if it was built without one. Safe for concurrent use.
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
