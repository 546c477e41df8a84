// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/doctor"
)

func newDoctorCommand() *cobra.Command {
	var place doctor.Place
	var o doctor.Options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with this node, and how to mend it",
		Long: `Look at the kernel, containerd and its handlers as they are in force, binaries, configurations, profiles and
directories, and start a canary pod for each handler. Each finding says what is so, what it breaks, and the exact fix.

Nothing is changed, unless --fix is given; then only what is safe is mended: missing directories, modes, canaries of a
doctor that was killed. containerd is never restarted. A canary is removed again in any case.

It exits with 0 if nothing failed, which it may with warnings, with 1 if something did, and with 2 if it was called
wrongly: it can serve as a probe. It has to run as root.`,
		Example: `  metsuke doctor
  metsuke doctor --fix
  metsuke doctor --no-canary -o json | jq '.findings[] | select(.severity == "fail")'
  metsuke doctor --handler metsuke-kata --check handlers --check kata --check canary
  metsuke doctor --root /host                    # in a DaemonSet that has the node's root there`,
		Args: usage(cobra.NoArgs),
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Handlers, "handler", nil, "look at this handler of containerd's only (repeatable)")
	f.VarP(&checksFlag{&o.Checks}, "check", "", "run this check only (repeatable): "+strings.Join(checkNames(), ", "))
	f.BoolVar(&o.NoCanary, "no-canary", false, "start no pods")
	f.BoolVar(&o.Mend, "fix", false, "mend what is safe to mend, and look again")
	f.StringVar(&place.Config, "config", "", "configuration to look at in the place of those that the handlers name")
	f.StringVar(&place.Root, "root", "/", "the node's root directory; all other paths are below it")
	f.StringVar(&place.Address, "containerd-address", cri.DefaultEndpoint, "socket of containerd")
	_ = cmd.MarkFlagFilename("config", "toml")
	_ = cmd.MarkFlagFilename("containerd-address")
	_ = cmd.MarkFlagDirname("root")
	_ = cmd.RegisterFlagCompletionFunc("check", completeChecks)
	_ = cmd.RegisterFlagCompletionFunc("handler", completeHandlers(&place))
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkPlace(place); err != nil {
			return cmd.FlagErrorFunc()(cmd, err)
		}
		// The first signal ends it in order, with its canary removed; a second one ends it at once.
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop)
		return runDoctor(ctx, cmd, place, o, output.Value)
	}
	return cmd
}

func checkPlace(p doctor.Place) error {
	for _, flag := range []struct{ name, path string }{{"config", p.Config}, {"root", p.Root}} {
		if flag.path != "" && !filepath.IsAbs(flag.path) {
			return fmt.Errorf("--%s: %q is not an absolute path", flag.name, flag.path)
		}
	}
	return nil
}

func runDoctor(ctx context.Context, cmd *cobra.Command, place doctor.Place, o doctor.Options, form string) error {
	n, err := doctor.Open(ctx, place)
	if err != nil {
		return err
	}
	defer func() { _ = n.Close() }()
	report, err := doctor.Run(ctx, n, o)
	if err != nil {
		return err
	}
	if form == "json" {
		err = terminal.JSON(cmd.OutOrStdout(), report)
	} else {
		err = report.Write(cmd.OutOrStdout())
	}
	if err == nil && !report.Healthy() {
		err = errReported
	}
	return err
}

// checksFlag is a list of names of checks.
type checksFlag struct{ list *[]string }

func (f *checksFlag) String() string { return "" }
func (f *checksFlag) Type() string   { return "name" }
func (f *checksFlag) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if !slices.Contains(checkNames(), name) {
			return fmt.Errorf("%q is no check; %s", name, diagnostic.Expected(name, checkNames()))
		}
		*f.list = append(*f.list, name)
	}
	return nil
}

func checkNames() (names []string) {
	for _, c := range doctor.Checks() {
		names = append(names, c.Name)
	}
	return names
}

func completeChecks(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, c := range doctor.Checks() {
		out = append(out, cobra.CompletionWithDesc(c.Name, c.About))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeHandlers completes the name of a handler of Metsuke's that is in force.
func completeHandlers(place *doctor.Place) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		n, err := doctor.Open(cmd.Context(), *place)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer func() { _ = n.Close() }()
		return n.Handlers(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	}
}
