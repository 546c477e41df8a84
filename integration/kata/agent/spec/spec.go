// SPDX-License-Identifier: Apache-2.0

// Package spec turns what Kata's shim sends into the OCI form, with all that the real agent loses or changes on the way, and
// holds the rules of its jail ("rustjail") that runc does not have. It is pure: it reads and writes nothing.
//
// The references are to Kata Containers 4.1.0: TR is src/libs/protocols/src/trans.rs, RJ is src/agent/rustjail/src, AG is
// src/agent/src.
package spec

import (
	"errors"
	"strings"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Convert gives the OCI form of a container's specification (TR, grpc::Spec to oci::Spec). A number that is zero means that
// the field was not sent. It fails where the real agent panics while it converts, and where it refuses what is missing.
//
// Not carried over: hooks (the Go shim sends none), AppArmor and SELinux (RJ has no AppArmor, and the stand's guest kernel no
// SELinux), the size of the console (RJ never looks at it), Solaris and Windows.
func Convert(in *grpc.Spec) (*specs.Spec, error) {
	if in.GetProcess() == nil || in.GetLinux() == nil || in.GetRoot() == nil {
		return nil, errors.New("EINVAL: no process, root or linux in the spec") // AG/rpc.rs do_create_container, setup_bundle
	}
	if in.Process.Capabilities == nil {
		// RJ/container.rs start: the first process is looked at in the same way as an exec.
		return nil, ErrNoCapabilities
	}
	linux, err := convertLinux(in.Linux)
	if err != nil {
		return nil, err
	}
	version := in.Version
	if version == "" {
		version = specs.Version
	}
	return &specs.Spec{
		Version:     version,
		Process:     Process(in.Process),
		Root:        &specs.Root{Path: in.Root.Path, Readonly: in.Root.Readonly},
		Hostname:    in.Hostname,
		Mounts:      convertMounts(in.Mounts),
		Annotations: in.Annotations,
		Linux:       linux,
	}, nil
}

func convertLinux(in *grpc.Linux) (*specs.Linux, error) {
	seccomp, err := convertSeccomp(in.Seccomp)
	if err != nil {
		return nil, err
	}
	out := &specs.Linux{
		UIDMappings:       convertMappings(in.UIDMappings),
		GIDMappings:       convertMappings(in.GIDMappings),
		Sysctl:            in.Sysctl,
		Resources:         Resources(in.Resources),
		CgroupsPath:       in.CgroupsPath,
		Seccomp:           seccomp,
		RootfsPropagation: in.RootfsPropagation,
		MaskedPaths:       in.MaskedPaths,
		ReadonlyPaths:     in.ReadonlyPaths,
	}
	for _, n := range in.Namespaces {
		out.Namespaces = append(out.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(n.Type), Path: n.Path})
	}
	for _, d := range in.Devices {
		mode, uid, gid := fileMode(d.FileMode), d.UID, d.GID
		out.Devices = append(out.Devices, specs.LinuxDevice{
			Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, FileMode: &mode, UID: &uid, GID: &gid,
		})
	}
	return out, nil
}

func convertMappings(in []*grpc.LinuxIDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range in {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	return out
}

func convertMounts(in []*grpc.Mount) []specs.Mount {
	var out []specs.Mount
	for _, m := range in {
		out = append(out, specs.Mount{Destination: m.Destination, Source: m.Source, Type: m.Type, Options: m.Options})
	}
	return out
}

// CgroupPath is the path of the container's cgroup below the root of the hierarchy (RJ/container.rs, LinuxContainer::new,
// without systemd): the id where none was sent, and a systemd name with its colons as slashes.
func CgroupPath(s *specs.Spec, id string) string {
	if s.Linux.CgroupsPath == "" {
		return "/" + id
	}
	return strings.ReplaceAll(s.Linux.CgroupsPath, ":", "/")
}
