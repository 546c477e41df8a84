// SPDX-License-Identifier: Apache-2.0

package launcher

// sysSeccomp is the number of seccomp(2).
const sysSeccomp = 277
