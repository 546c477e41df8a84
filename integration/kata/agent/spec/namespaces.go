// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Shared are the paths of the sandbox's namespaces; an empty one means a namespace of the container's own.
type Shared struct{ IPC, UTS, PID string }

// Namespaces puts a container into its namespaces (AG/rpc.rs update_container_namespaces, RJ/container.rs do_init_child): ipc
// and uts of the sandbox, wherever the request points; always a pid namespace, its own or the sandbox's; always a cgroup
// namespace of its own, rooted at its cgroup. The shims send no network namespace, so that all containers of a pod share the
// guest's.
//
// runc makes the cgroup namespace once and execs join it, the real agent makes one for each process: both are rooted at the
// container's cgroup.
func Namespaces(s *specs.Spec, shared Shared) {
	for i := range s.Linux.Namespaces {
		switch n := &s.Linux.Namespaces[i]; n.Type {
		case specs.IPCNamespace:
			n.Path = shared.IPC
		case specs.UTSNamespace:
			n.Path = shared.UTS
			if n.Path != "" {
				s.Hostname = "" // it is set for a new namespace only; runc would set it in the one it joins
			}
		}
	}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace || n.Type == specs.CgroupNamespace
	})
	s.Linux.Namespaces = append(s.Linux.Namespaces,
		specs.LinuxNamespace{Type: specs.PIDNamespace, Path: shared.PID},
		specs.LinuxNamespace{Type: specs.CgroupNamespace})
}

// TakeNetworkSysctls removes the settings of the network from s and gives them back, for the caller to put in force in the
// guest, whose network the container shares. The real agent writes them in the container, to the same effect; runc refuses
// them without a network namespace. A container with one keeps them.
func TakeNetworkSysctls(s *specs.Spec) map[string]string {
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			return nil
		}
	}
	rest, taken := map[string]string{}, map[string]string{}
	for name, value := range s.Linux.Sysctl {
		if strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "net/") {
			taken[name] = value
		} else {
			rest[name] = value
		}
	}
	s.Linux.Sysctl = rest
	return taken
}
