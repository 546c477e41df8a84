// SPDX-License-Identifier: Apache-2.0

package spec

import (
	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Resources gives the OCI form of resources as the agent understands them (TR, grpc::LinuxResources and its parts):
//   - A pids limit that was sent is lost, and one that was not sent becomes the limit 0, which means none: the condition is
//     the wrong way round (TR:754; kata-containers#13824). So each Create and each Update without pids lifts pids.max.
//   - Numbers pass only above zero, so that a limit can never be taken away.
//   - unified and rdma are not in the protocol.
//
// Not carried over: devices, blockIO, hugepages and network, of which the shims send none (src/runtime/virtcontainers
// kata_agent.go constrainGRPCSpec; runtime-rs container_manager/container.rs).
func Resources(in *grpc.LinuxResources) *specs.LinuxResources {
	if in == nil {
		return nil
	}
	out := &specs.LinuxResources{}
	if in.Pids == nil {
		out.Pids = &specs.LinuxPids{Limit: new(int64)}
	}
	if m := in.Memory; m != nil {
		out.Memory = &specs.LinuxMemory{
			Limit: positive(m.Limit), Reservation: positive(m.Reservation), Swap: positive(m.Swap),
		}
	}
	if c := in.CPU; c != nil {
		out.CPU = &specs.LinuxCPU{
			Shares: positive(c.Shares), Quota: positive(c.Quota), Period: positive(c.Period), Cpus: c.Cpus, Mems: c.Mems,
		}
	}
	return out
}

func positive[N int64 | uint64](n N) *N {
	if n > 0 {
		return &n
	}
	return nil
}
