// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/pods"
	"metsuke.dev/metsuke/node/pods/show"
)

const defaultDenials = 10

func newInspectCommand() *cobra.Command {
	o := pods.Options{Denials: defaultDenials}
	cmd := &cobra.Command{
		Use:   "inspect POD | NAMESPACE/POD | ID",
		Short: "Show all that is known of one pod: profile, receipt, limits against usage, counts, denials",
		Long: `Show all that is known of one pod that is on this node. It is named by its name, or by the first four or more characters of
the id of its sandbox or of one of its containers.

Of each container: its profile, and whether a new container like it would get another one now; what was found in force before
its first instruction; its limits and what it uses; its calls by class and verdict, its denials by rule, and the newest of
them; exec sessions that run; requests that were lowered, losses, and where its stream is.

Calls are counted from the container's creation on. With --since they are counted in the stream, which takes the longer the
more there is.`,
		Example: `  metsuke inspect team-a/coder
  metsuke inspect --since 10m -n 0 coder
  metsuke inspect -o json 3f9c0c1e | jq '.containers[].stream.counts.denials'`,
		Args: usage(cobra.ExactArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completePods(cmd, args, word)
		},
	}
	addNodeFlags(cmd)
	cmd.Flags().Var(&flagvalue.Time{T: &o.Since}, "since", "count the records from then on: 10m (ago), 2026-01-31T08:00:00Z")
	cmd.Flags().VarP(&denialsFlag{&o.Denials}, "denials", "n", fmt.Sprintf("show the last so many denials, %d at most (default %d)", tally.MaxRecent, defaultDenials))
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
		defer stop()
		return inspect(ctx, cmd, args[0], o, output.Value == "json")
	}
	return cmd
}

// denialsFlag is a count of what is kept of denials.
type denialsFlag struct{ n *int }

func (f *denialsFlag) String() string { return "" }
func (f *denialsFlag) Type() string   { return "count" }
func (f *denialsFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n > tally.MaxRecent {
		return fmt.Errorf("must be a count of %d at most; metsuke audit tail --verdict denied,killed shows all", tally.MaxRecent)
	}
	*f.n = int(n)
	return nil
}

func inspect(ctx context.Context, cmd *cobra.Command, name string, o pods.Options, asJSON bool) error {
	node, cfg, err := podsOf(cmd)
	if err != nil {
		return err
	}
	p, err := node.Inspect(ctx, name, o)
	var missing *pods.NotFoundError
	var ambiguous *pods.AmbiguousError
	switch {
	case errors.As(err, &missing), errors.Is(err, fs.ErrNotExist):
		return notHere(name, node.StateDir, cfg.Directories.Audit)
	case errors.As(err, &ambiguous):
		return namesSeveral(ambiguous)
	case err != nil:
		return err
	}
	if asJSON {
		err = terminal.JSON(cmd.OutOrStdout(), p)
	} else {
		err = show.Pod(cmd.OutOrStdout(), p, time.Now(), terminal.Color(cmd.OutOrStdout()))
	}
	if err != nil {
		return err
	}
	if show.Problems(cmd.ErrOrStderr(), p) {
		return errors.New("not all could be found out")
	}
	return nil
}

// notHere says what may have become of a pod that is not here.
func notHere(name, stateDir, auditDir string) error {
	namespace, pod, full := strings.Cut(name, "/")
	if !full {
		namespace, pod = "", name
	}
	quoted := timeline.Escape(name)
	streams, _ := stream.List(auditDir)
	for _, s := range streams {
		if s.Names(namespace, pod, "") {
			return fmt.Errorf("pod %s runs no more; what it did is in its stream: metsuke audit tail -n all %s", quoted, quoted)
		}
	}
	return fmt.Errorf("no pod %s runs under Metsuke on this node, by what is in %s; metsuke ps lists those that do. Another handler's "+
		"configuration may name another state directory: give it with --config", quoted, timeline.Escape(stateDir))
}

// namesSeveral says which pods a name may mean.
func namesSeveral(e *pods.AmbiguousError) error {
	const shown = 20
	var text strings.Builder
	for i, p := range e.Pods[:min(len(e.Pods), shown)] {
		fmt.Fprintf(&text, "\n  %s  %s", timeline.Escape(p.SandboxID), show.Name(&e.Pods[i]))
	}
	if more := len(e.Pods) - shown; more > 0 {
		fmt.Fprintf(&text, "\n  and %d more", more)
	}
	return fmt.Errorf("%q means several pods; give the namespace too, or the id:%s", timeline.Escape(e.Name), text.String())
}
