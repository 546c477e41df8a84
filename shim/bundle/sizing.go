// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"math"
	"strconv"

	"metsuke.dev/metsuke/cgroups"
)

// Annotations by which containerd's CRI plugin tells the size of a pod (pkg/cri/annotations), from kubelet's sum of its
// containers' limits. Zero is what kubelet sends for a pod without.
const (
	annotationPeriod = "io.kubernetes.cri.sandbox-cpu-period" // µs
	annotationQuota  = "io.kubernetes.cri.sandbox-cpu-quota"  // µs in a period
	annotationMemory = "io.kubernetes.cri.sandbox-memory"     // bytes
)

// sizingPeriod is that of a quota that we state, in µs: kubelet's.
const sizingPeriod = 100_000

// SizeSandbox states the size of the pod's VM in the specification of its pause container, where Kata looks for it: what
// the pod asks, or else the ceilings l of its profile; and on top of the memory, reserve, in bytes, for what Metsuke runs in
// the guest. Kata rounds memory down to MiB.
//
// Where neither says how much memory, nothing is stated, and the VM gets Kata's default, which has room for Metsuke: once CPUs
// alone are stated, runtime-rs gives a VM no more memory than its own overhead
// (docs/how-to/how-to-size-sandbox-overhead-runtime-rs.md of Kata 4.1).
func SizeSandbox(l cgroups.Limits, reserve int64) Edit {
	return func(s *Spec) error {
		a, err := s.Annotations()
		if err != nil {
			return err
		}
		size := func(key string) (int64, error) {
			if a[key] == "" {
				return 0, nil
			}
			n, err := strconv.ParseInt(a[key], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("annotations.%s: %q is no number", key, a[key])
			}
			return max(n, 0), nil // -1 says the same as 0
		}
		memory, err := size(annotationMemory)
		if err != nil {
			return err
		}
		quota, err := size(annotationQuota)
		if err != nil {
			return err
		}
		if memory == 0 && l.Memory != nil {
			memory = *l.Memory
		}
		if memory == 0 {
			return nil
		}
		a[annotationMemory] = strconv.FormatInt(memory+min(reserve, math.MaxInt64-memory), 10)
		if quota == 0 && l.CPU != nil {
			a[annotationQuota] = strconv.FormatInt(*l.CPU*sizingPeriod/1000, 10)
			a[annotationPeriod] = strconv.FormatInt(sizingPeriod, 10)
		}
		return s.root.set("annotations", a)
	}
}
