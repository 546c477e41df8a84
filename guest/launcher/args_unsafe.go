// SPDX-License-Identifier: Apache-2.0

package launcher

import _ "unsafe" // for go:linkname

// The runtime hands the arguments to package os and the environment to package syscall only. The
// first is too big for the launcher; the second drops all but one of equal names, which the
// delegate has already done if it does that at all.

//go:linkname runtimeArgs os.runtime_args
func runtimeArgs() []string

//go:linkname runtimeEnv syscall.runtime_envs
func runtimeEnv() []string

// Args returns the process's arguments, the program's name first.
func Args() []string { return append([]string(nil), runtimeArgs()...) }

// environ returns the environment as the kernel passed it.
func environ() []string { return append([]string(nil), runtimeEnv()...) }
