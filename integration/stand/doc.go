// SPDX-License-Identifier: Apache-2.0

// Package stand runs a real containerd, through CRI, in namespaces of its own, for the tests and commands of this module.
//
// A program calls [Enter] first. Enter builds what is missing (containerd, runc, CNI plugins, Metsuke, a test workload),
// then runs the program again in new pid, mount, network, cgroup, IPC and UTS namespaces, under cgroups of its own, with
// tmpfs over /run. There the program calls [Start] for a containerd of a version, and makes pods on it.
//
// Nothing stays behind, by construction: the kernel ends every process of the pid namespace with its init, mounts and
// network go with their namespaces, and the outer process removes the cgroups and fails when it cannot. Inside, all
// processes, mounts and cgroups that exist belong to the stand, so [Snapshot] and [Leaks] are exact.
//
// What runs the pods is a parameter, a [Delegate]: [Runc], or [Kata] with a guest of its own for each pod.
//
// It needs root. It works on cgroup v2, and on v1 with or without a unified hierarchy.
package stand
