// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"os"
	"strings"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ErrNoCapabilities is what a container without process.capabilities gets, for its first process and for each exec
// (RJ/container.rs start).
var ErrNoCapabilities = errors.New("missing process capabilities")

// Process gives the OCI form of a process (TR, grpc::Process to oci::Process). Capabilities that were not sent stay nil.
func Process(in *grpc.Process) *specs.Process {
	out := &specs.Process{
		Terminal: in.GetTerminal(),
		User: specs.User{
			UID: in.GetUser().GetUID(), GID: in.GetUser().GetGID(),
			AdditionalGids: in.GetUser().GetAdditionalGids(), Username: in.GetUser().GetUsername(),
		},
		Args:            in.GetArgs(),
		Env:             in.GetEnv(),
		Cwd:             in.GetCwd(),
		Capabilities:    convertCapabilities(in.GetCapabilities()),
		NoNewPrivileges: in.GetNoNewPrivileges(),
	}
	for _, r := range in.GetRlimits() {
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: r.Type, Hard: r.Hard, Soft: r.Soft})
	}
	if score := int(in.GetOOMScoreAdj()); score != 0 {
		out.OOMScoreAdj = &score
	}
	return out
}

// Exec is the process that an exec request runs in a container (RJ/container.rs start and do_init_child):
//   - capabilities that the request lacks are the container's, and both shims send none;
//   - resource limits and the OOM score are always those of the container's first process, whatever was sent;
//   - no_new_privs is what was sent, and the Go shim sends false even where the container has it.
func Exec(container *specs.Process, in *grpc.Process) (*specs.Process, error) {
	out := Process(in)
	if out.Capabilities == nil {
		if container.Capabilities == nil {
			return nil, ErrNoCapabilities
		}
		out.Capabilities = container.Capabilities
	}
	out.Rlimits = container.Rlimits
	out.OOMScoreAdj = container.OOMScoreAdj
	return out, nil
}

func convertCapabilities(in *grpc.LinuxCapabilities) *specs.LinuxCapabilities {
	if in == nil {
		return nil
	}
	return &specs.LinuxCapabilities{
		Bounding:    unquoted(in.Bounding),
		Effective:   unquoted(in.Effective),
		Inheritable: unquoted(in.Inheritable),
		Permitted:   unquoted(in.Permitted),
		Ambient:     unquoted(in.Ambient),
	}
}

// unquoted strips the quotes that some senders leave around names (TR, cap_vec2hashset).
func unquoted(names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, strings.Trim(n, `"`))
	}
	return out
}

// fileMode takes the permissions of a device; its type is told by a letter of its own.
func fileMode(mode uint32) os.FileMode { return os.FileMode(mode & 0o7777) }
