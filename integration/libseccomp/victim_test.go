// SPDX-License-Identifier: Apache-2.0

//go:build seccomp && linux && amd64 && cgo

package libseccomp

func victim() {}
