// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

func newProfileRenderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render NAME",
		Short: "Show what a profile becomes: the filter, and the resources",
		Long: `Show what a profile, over the node's floor, becomes for a pod that brings no seccomp profile and asks no limits: the
filter that is loaded, as readable BPF; each layer as an OCI seccomp profile, which is as near as that form can say it;
and the OCI resources.`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeProfiles,
	}
	var natives []string
	for _, a := range seccomp.KnownArches() {
		if a.Native {
			natives = append(natives, a.Go)
		}
	}
	arch := flagvalue.NewEnum(defaultArch(), natives...)
	format := flagvalue.NewEnum("all", "all", "oci", "bpf")
	version := flagvalue.NewEnum("v2", "v1", "v2")
	cmd.Flags().Var(arch, "arch", "architecture: "+strings.Join(natives, ", "))
	cmd.Flags().Var(format, "format", "oci: OCI JSON; bpf: the filter; all")
	cmd.Flags().Var(version, "cgroup", "version of cgroups to render the resources for: v1, v2")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := loadNode(cmd)
		if err != nil {
			return err
		}
		r, err := n.resolve(args[0])
		if err != nil {
			return err
		}
		if r.Passthrough {
			return fmt.Errorf("profile %s changes nothing, so there is nothing to render", r.Name)
		}
		a, err := seccomp.ParseArch(arch.Value)
		if err != nil {
			return err
		}
		v := cgroups.V2
		if version.Value == "v1" {
			v = cgroups.V1
		}
		return render(cmd, r, a, v, format.Value)
	}
	return cmd
}

func defaultArch() string {
	for _, a := range seccomp.KnownArches() {
		if a.Arch == seccomp.NativeArch() {
			return a.Go
		}
	}
	return "amd64"
}

// rendering is the OCI form of a profile.
type rendering struct {
	Seccomp    []layerRendering      `json:"seccomp"`
	Resources  *specs.LinuxResources `json:"resources"`
	Unresolved []string              `json:"unresolved,omitempty"` // limits that only a node can render
}

type layerRendering struct {
	Layer   string              `json:"layer"`
	Profile *specs.LinuxSeccomp `json:"profile"`
}

func render(cmd *cobra.Command, r *profile.Resolved, a seccomp.Arch, v cgroups.Version, format string) error {
	w := cmd.OutOrStdout()
	policy := r.Policy(a, nil)
	program, err := seccomp.Compile(policy)
	if err != nil {
		return err
	}
	p := &terminal.Printer{W: w}
	if format != "bpf" {
		oci, err := newRendering(policy, r.Limits, v)
		if err != nil {
			return err
		}
		if format == "all" {
			p.F("# %s on %s, as OCI layers and resources (cgroup %s)\n", r.Name, a.Name(), v)
		}
		if p.Err == nil {
			p.Err = terminal.JSON(w, oci)
		}
	}
	if format != "oci" {
		filter := program.Filter()
		if format == "all" {
			p.F("\n# the filter\n")
		}
		p.F("# %d instructions, sha256 %s\n%s", len(filter), program.Digest(), seccomp.Disassemble(filter))
	}
	return p.Err
}

func newRendering(policy seccomp.Policy, limits cgroups.Limits, v cgroups.Version) (*rendering, error) {
	out := &rendering{Seccomp: []layerRendering{}, Resources: &specs.LinuxResources{}}
	for _, view := range seccomp.OCI(policy) {
		out.Seccomp = append(out.Seccomp, layerRendering{view.Name, view.Profile})
	}
	// Paths of devices become numbers on the node that has them.
	var known []cgroups.IOLimit
	for _, d := range limits.IO {
		if strings.HasPrefix(d.Device, "/") {
			out.Unresolved = append(out.Unresolved, "io of "+d.Device)
			continue
		}
		known = append(known, d)
	}
	limits.IO = known
	if _, err := cgroups.Clamp(out.Resources, limits, v); err != nil {
		return nil, err
	}
	return out, nil
}
