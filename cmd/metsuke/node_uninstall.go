// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/node/install"
)

func newNodeUninstallCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Metsuke off a node",
		Long: `uninstall takes the handlers out of containerd's configuration, restarts containerd, and removes what install
brought, so that the node is as it was. It refuses while pods run under Metsuke's handlers.

What others wrote or changed stays, and is listed; so do the audit streams and their key, unless --purge. It can be run again after it
was interrupted.

It exits with 0 if Metsuke is gone, and with 3 if it will be after a restart that --no-restart forbids.`,
		Example: `  metsuke node uninstall
  metsuke node uninstall --root /host --purge`,
		Args: usage(cobra.NoArgs),
	}
	var f nodeFlags
	f.add(cmd)
	f.addRestart(cmd)
	stay := cmd.Flags().Bool("stay", false, "do not exit when all is done, until told to: a DaemonSet starts again what ends")
	purge := cmd.Flags().Bool("purge", false, "remove the audit streams in "+install.LogDir+", and the key in "+install.LibDir+", too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := interruptible(cmd)
		defer cancel()
		n, err := f.open(ctx, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer func() { _ = n.Tree.Close() }()
		left, err := n.Uninstall(ctx, *purge)
		if err != nil {
			return pending(cmd, err)
		}
		for _, path := range left {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), "left: "+path); err != nil {
				return err
			}
		}
		if _, err = fmt.Fprintln(cmd.OutOrStdout(), "metsuke is uninstalled"); err == nil && *stay {
			<-ctx.Done()
		}
		return err
	}
	return cmd
}
