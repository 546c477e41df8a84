// SPDX-License-Identifier: Apache-2.0

package cgroups

import "math"

// The OCI form has shares (cgroup v1, 2 to 262144, default 1024), profiles have weights (cgroup v2, 1 to
// 10000, default 100). Delegates convert with one of two formulas; a ceiling must hold under both.
const (
	minShares     = 2
	maxShares     = 262144
	defaultShares = 1024
	defaultWeight = 100
)

// weightOfShares is the conversion of opencontainers/cgroups since v0.0.6 (runc 1.4, crun 1.24): quadratic
// in log2, through (2, 1), (1024, 100) and (262144, 10000).
func weightOfShares(shares uint64) uint64 {
	if shares <= minShares {
		return 1
	}
	if shares >= maxShares {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

// linearWeight is the conversion that came before it (KEP-2254); agents in older guests still use it.
func linearWeight(shares uint64) uint64 {
	if shares <= minShares {
		return 1
	}
	return 1 + (min(shares, maxShares)-2)*9999/262142
}

// sharesOfWeight returns the most shares whose weight is at most weight under both conversions.
func sharesOfWeight(weight uint64) uint64 {
	lo, hi := uint64(minShares), uint64(maxShares)
	for lo < hi { // both conversions are monotonic
		mid := (lo + hi + 1) / 2
		if max(weightOfShares(mid), linearWeight(mid)) <= weight {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}
