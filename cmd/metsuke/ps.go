// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/pods"
	"metsuke.dev/metsuke/node/pods/show"
)

func newPsCommand() *cobra.Command {
	var f pods.Filter
	cmd := &cobra.Command{
		Use:   "ps [POD | NAMESPACE/POD]...",
		Short: "List what runs on this node under Metsuke, under which profile, and what it was denied",
		Long: `List the containers that run on this node under Metsuke, or those of the named pods.

EVENTS is the number of records in the container's stream; DENIED counts the calls that were denied or killed since the
container was created. A container under passthrough has neither. STATE is the container's own, as its delegate tells it, or
what became of its pod's shim:
  unreachable  it gave no answer within --timeout
  dead         it is gone, and containerd has not cleaned up yet: nothing is watched

With -o json each line is a pod. The exit code is 1 if something could not be found out; standard error says what.`,
		Example: `  metsuke ps
  metsuke ps --namespace team-a -o wide
  metsuke ps -o json | jq -r '.containers[] | select(.profile != "baseline") | .id'`,
		ValidArgsFunction: completePods,
	}
	flags := cmd.Flags()
	addNodeFlags(cmd)
	flags.StringSliceVar(&f.Namespaces, "namespace", nil, "only pods of this namespace")
	output := addOutputFlag(cmd, "table", "wide", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.Pods = args
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
		defer stop()
		return ps(ctx, cmd, f, output.Value)
	}
	return cmd
}

// addNodeFlags adds the flags that podsOf reads.
func addNodeFlags(cmd *cobra.Command) {
	cmd.Flags().Duration("timeout", pods.DefaultPatience, "how long a pod's shim is waited for")
	cmd.Flags().String("config", "", "configuration file that names the state directory (default "+config.DefaultPath+", if it exists)")
	_ = cmd.MarkFlagFilename("config", "toml")
}

// podsOf returns the pods' node and the configuration that the flags say, where the command has them.
func podsOf(cmd *cobra.Command) (*pods.Node, *config.Config, error) {
	file, _ := cmd.Flags().GetString("config")
	patience, _ := cmd.Flags().GetDuration("timeout")
	if cmd.Flags().Changed("timeout") && patience <= 0 {
		return nil, nil, cmd.FlagErrorFunc()(cmd, fmt.Errorf("invalid argument %q for --timeout: must be positive", patience))
	}
	c, err := config.LoadOrDefault(file)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration: %w", err)
	}
	return &pods.Node{StateDir: c.Directories.State, Patience: patience}, c, nil
}

func ps(ctx context.Context, cmd *cobra.Command, f pods.Filter, form string) error {
	node, _, err := podsOf(cmd)
	if err != nil {
		return err
	}
	list, err := node.List(ctx, f)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(cmd.ErrOrStderr(), "metsuke: no pod has run under Metsuke since this node's boot, or the configuration names another "+
			"state directory than %s: give it with --config\n", timeline.Escape(node.StateDir))
		list, err = []pods.Pod{}, nil
	}
	if err != nil {
		return err
	}
	if form == "json" {
		err = show.JSON(cmd.OutOrStdout(), list)
	} else {
		err = show.Table(cmd.OutOrStdout(), list, form == "wide", time.Now())
	}
	if err != nil {
		return err
	}
	bad := 0
	for i := range list {
		if show.Problems(cmd.ErrOrStderr(), &list[i]) {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("of %d of %d pods not all could be found out", bad, len(list))
	}
	return nil
}

// completePods completes the name of a pod that is on this node.
func completePods(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	node, _, err := podsOf(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := node.OnDisk(cmd.Context())
	var names []string
	for i := range list {
		if name := show.Name(&list[i]); list[i].Name != "" && !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
