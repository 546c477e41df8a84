// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package main

import "syscall"

// int80 is for machines that have it; elsewhere it says what a filter would.
func int80(uint32) int32 { return -int32(syscall.ENOSYS) }
