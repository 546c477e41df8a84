// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/node/install"
)

func newNodeInstallCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install or upgrade Metsuke on a node",
		Long: `install puts this version's binaries into /opt/metsuke, adds a handler to containerd for each delegate that
it finds (metsuke-runc; metsuke-kata-qemu and so on for Kata's), and restarts containerd if it has to. Running pods are
not touched, and keep the version that they started with.

It can be run again at any time, also after it was interrupted, and then does what is left to do. What others wrote or
changed it leaves alone. If containerd does not come up with the new configuration, it gets the old one back.

It exits with 0 if the node is as it should be, and with 3 if all is done but a restart that --no-restart forbids.`,
		Example: `  metsuke node install --dry-run          # what would be done, and the changes of files
  metsuke node install
  metsuke node install --root /host       # in a DaemonSet
  metsuke node install --containerd /usr/bin/containerd --no-restart    # without systemd`,
		Args: usage(cobra.NoArgs),
	}
	var f nodeFlags
	f.add(cmd)
	f.addSource(cmd)
	f.addRestart(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "print what would be done, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := interruptible(cmd)
		defer cancel()
		source, err := f.source(ctx)
		if err != nil {
			return err
		}
		n, err := f.open(ctx, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer func() { _ = n.Tree.Close() }()
		if *dryRun {
			p, err := n.Plan(ctx, source)
			if err != nil {
				return err
			}
			return printPlan(cmd.OutOrStdout(), p)
		}
		p, err := n.Install(ctx, source)
		if err != nil {
			return pending(cmd, err)
		}
		return printInstalled(cmd.OutOrStdout(), p)
	}
	return cmd
}

func printInstalled(w io.Writer, p *install.Plan) error {
	var names []string
	for _, h := range p.Handlers {
		names = append(names, h.Name)
	}
	for _, note := range p.Notes {
		if _, err := fmt.Fprintln(w, "note: "+note); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "metsuke %s is installed; handlers: %s\n", p.Version, strings.Join(names, ", "))
	return err
}

func printPlan(w io.Writer, p *install.Plan) error {
	var b strings.Builder
	for _, note := range p.Notes {
		fmt.Fprintln(&b, "note: "+note)
	}
	if p.Interrupted {
		fmt.Fprintln(&b, "an earlier change was interrupted; it would be ended")
	}
	if len(p.Steps()) == 0 {
		fmt.Fprintln(&b, "nothing to do")
	}
	for _, step := range p.Steps() {
		fmt.Fprintln(&b, "would "+step)
	}
	if p.Restart {
		fmt.Fprintln(&b, "containerd has to be restarted: "+p.Why)
	}
	for _, c := range p.Changes {
		b.WriteString("\n" + diff(c))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// diff shows the lines that differ, with what is around them. What changes in a file is in one place.
func diff(c install.Change) string {
	const around = 2
	before, after := lines(c.Before), lines(c.After)
	head := 0
	for head < min(len(before), len(after)) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < min(len(before), len(after))-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:\n", c.Path)
	put := func(mark string, list []string) {
		for _, line := range list {
			b.WriteString(mark + line + "\n")
		}
	}
	put("  ", before[max(0, head-around):head])
	put("- ", before[head:len(before)-tail])
	put("+ ", after[head:len(after)-tail])
	put("  ", before[len(before)-tail:len(before)-tail+min(tail, around)])
	return b.String()
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
