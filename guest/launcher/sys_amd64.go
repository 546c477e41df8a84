// SPDX-License-Identifier: Apache-2.0

package launcher

// sysSeccomp is the number of seccomp(2), which package syscall's frozen table does not have.
const sysSeccomp = 317
