// SPDX-License-Identifier: Apache-2.0

package supervisor

import "unsafe"

// view shows bytes as a string without copying them. The string changes with the bytes, so it lives no longer than
// the event that it is part of: sinks must not keep it.
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}
