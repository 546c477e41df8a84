// SPDX-License-Identifier: Apache-2.0

// Package kata says which of a pod's annotations could weaken what Metsuke promises in Kata's guests.
package kata

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Prefix is that of every annotation by which a pod changes Kata's configuration for itself.
const Prefix = "io.katacontainers."

// Harmless are those of Kata's annotations that change how large the VM is and how long it may take, and nothing that
// Metsuke's promises rest on. All others are refused, those included that Kata does not have yet: kernel parameters, guest
// hooks, the agent's and the runtime's settings (a debug console, a policy, its own seccomp, another configuration file),
// initdata, paths of host programs, swap past the profile's limit. Source: docs/how-to/how-to-set-sandbox-config-kata.md,
// src/runtime/virtcontainers/pkg/annotations and src/libs/kata-types/src/annotations of Kata 3.x and 4.1.
var Harmless = []string{
	Prefix + "config.hypervisor.default_vcpus",
	Prefix + "config.hypervisor.default_max_vcpus",
	Prefix + "config.hypervisor.default_memory",
	Prefix + "config.hypervisor.memory_slots",
	Prefix + "config.hypervisor.enable_virtio_mem",
	Prefix + "config.hypervisor.enable_mem_prealloc",
	Prefix + "config.hypervisor.enable_hugepages",
	Prefix + "config.hypervisor.reclaim_guest_freed_memory",
	Prefix + "config.hypervisor.default_gpus",
	Prefix + "config.hypervisor.default_gpu_model",
	Prefix + "config.runtime.create_container_timeout",
}

// Foreign are prefixes of the annotations of other CRI implementations that Kata reads beside containerd's. runtime-rs reads CRI-O's
// first (src/libs/kata-types/src/k8s.rs): with them a container would be, to Kata, one of another pod or a pod of its own.
var Foreign = []string{"io.kubernetes.cri-o.", "io.kubernetes.docker.type", "io.kubernetes.sandbox.id"}

// CheckAnnotations refuses annotations of Kata's that could weaken what Metsuke promises: any that is neither known to be harmless
// nor, by its whole key, among allowed. And annotations that make Kata see another pod than containerd does.
func CheckAnnotations(a map[string]string, allowed []string) error {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		switch {
		case slices.ContainsFunc(Foreign, func(prefix string) bool { return strings.HasPrefix(key, prefix) }):
			return fmt.Errorf("annotation %s: it says to Kata whose container this is, and so does containerd: remove it from the pod", key)
		case strings.HasPrefix(key, Prefix) && !slices.Contains(Harmless, key) && !slices.Contains(allowed, key):
			return fmt.Errorf("annotation %s: it could change what Metsuke relies on in the guest: remove it from the pod, or have the "+
				"node's operator name it in delegate.allowed_annotations of Metsuke's config.toml", key)
		}
	}
	return nil
}
