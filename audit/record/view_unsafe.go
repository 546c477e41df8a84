// SPDX-License-Identifier: Apache-2.0

package record

import "unsafe"

// view is b as a string that shares its memory: it changes when b does.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
