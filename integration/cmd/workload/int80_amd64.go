// SPDX-License-Identifier: Apache-2.0

package main

// int80 makes a system call of 32-bit x86 from this 64-bit program, with zeros as arguments.
func int80(number uint32) int32
