// SPDX-License-Identifier: Apache-2.0

// Functions without a body (go:linkname) are accepted only in a package with an assembly file.
