// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/retention"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/config"
)

// retainCommand is one call of "metsuke audit retain".
type retainCommand struct {
	cmd      *cobra.Command
	every    time.Duration
	dryRun   bool
	keyFiles []string
	json     bool
}

func newAuditRetainCommand() *cobra.Command {
	var c retainCommand
	cmd := &cobra.Command{
		Use:   "retain",
		Short: "Compress segments, and remove what is beyond the limits of age and size",
		Long: `Do one round of retention, as [audit.retention] in the node's configuration says: compress complete segments; remove what is older than
max_age; remove the oldest while a pod's streams take more than pod_size, or all of the node more than node_size. What a sink of "shipped" has
not confirmed stays, and so does the last segment of each container that runs. What is removed is told, signed, so that metsuke audit verify
can tell it from what somebody took away.

One process of a node does this; another one is refused meanwhile. With --every it goes on, and reads the configuration anew each time.

It exits with 0, with 1 if something could not be done, and with 2 if it was called wrongly.`,
		Example: `  metsuke audit retain --dry-run
  metsuke audit retain
  metsuke audit retain --every 1m
  metsuke audit retain -o json`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.DurationVar(&c.every, "every", 0, "go on, and begin a round so often (at least 1s; default: one round)")
	f.BoolVar(&c.dryRun, "dry-run", false, "change nothing, and say what would be done")
	f.StringArrayVar(&c.keyFiles, "key", nil, "file with public keys that older streams are signed with (repeatable)")
	_ = cmd.MarkFlagFilename("key", "pem")
	addConfigFlag(cmd, "configuration file with [audit.retention]")
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("every") && c.every < time.Second {
			return cmd.FlagErrorFunc()(cmd, errors.New("--every: at least 1s"))
		}
		ctx, stop := interruptible(cmd)
		defer stop()
		c.cmd, c.json = cmd, output.Value == "json"
		if c.every == 0 {
			return c.round(ctx)
		}
		return c.rounds(ctx)
	}
	return cmd
}

// rounds goes on until ctx ends. What goes wrong in one round is said, and may go right in the next.
func (c *retainCommand) rounds(ctx context.Context) error {
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		if err := c.round(ctx); err != nil && !errors.Is(err, errReported) && ctx.Err() == nil {
			c.problem(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *retainCommand) round(ctx context.Context) error {
	cfg, err := loadConfig(c.cmd)
	if err != nil {
		return err
	}
	r, err := c.prepare(cfg)
	if err != nil {
		return err
	}
	report, err := r.Run(ctx)
	if errors.Is(err, fs.ErrNotExist) && c.every != 0 { // no container has run yet
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.report(report); err != nil {
		return err
	}
	if report.Problems > 0 {
		return errReported
	}
	return nil
}

// prepare makes a round of what the configuration says.
func (c *retainCommand) prepare(cfg *config.Config) (*retention.Round, error) {
	limits := cfg.Audit.Retention
	r := &retention.Round{
		Root:   cfg.Directories.Audit,
		Policy: retention.Policy{MaxAge: limits.MaxAge, PodSize: limits.PodSize, NodeSize: limits.NodeSize, Compress: limits.Compress},
		DryRun: c.dryRun, Did: c.did, Problem: c.problem,
	}
	if c.cmd.Flags().Changed("dir") {
		dir, err := auditDir(c.cmd)
		if err != nil {
			return nil, err
		}
		r.Root = dir
	}
	key, err := signature.Load(cfg.Audit.Key)
	switch {
	case err == nil:
		r.Key, r.Keys = key, signature.Ring{key.Public}
	case !errors.Is(err, fs.ErrNotExist) || cfg.Audit.KeyNamed: // otherwise the first pod makes it
		return nil, err
	}
	for _, file := range c.keyFiles {
		ring, err := signature.LoadRing(file)
		if err != nil {
			return nil, err
		}
		r.Keys = append(r.Keys, ring...)
	}
	r.Confirmed, err = retention.Shipped(limits.Checkpoints, limits.Shipped)
	if err != nil {
		c.problem(fmt.Errorf("nothing is removed that waits for this sink: %w", err))
	}
	return r, nil
}

func (c *retainCommand) problem(err error) {
	fmt.Fprintf(c.cmd.ErrOrStderr(), "metsuke: %s\n", timeline.Escape(err.Error()))
}

func (c *retainCommand) did(a retention.Action) {
	w := c.cmd.OutOrStdout()
	if c.json {
		_ = json.NewEncoder(w).Encode(a)
		return
	}
	would := ""
	if c.dryRun {
		would = "would be "
	}
	name := timeline.Escape(a.Stream)
	switch {
	case a.Kind == retention.Compressed && c.dryRun:
		fmt.Fprintf(w, "%s%s: %s of %s, %s\n", would, a.Kind, stream.SegmentName(a.From), name, cgroups.FormatBytes(a.Before))
	case a.Kind == retention.Compressed:
		fmt.Fprintf(w, "%s: %s of %s, %s to %s\n", a.Kind, stream.SegmentName(a.From), name, cgroups.FormatBytes(a.Before), cgroups.FormatBytes(a.After))
	case a.Whole:
		fmt.Fprintf(w, "%s%s: %s, all of it, %s (%s)\n", would, a.Kind, name, cgroups.FormatBytes(a.Before), a.Reason)
	case a.From == a.To:
		fmt.Fprintf(w, "%s%s: segment %d of %s, %s (%s)\n", would, a.Kind, a.From, name, cgroups.FormatBytes(a.Before), a.Reason)
	default:
		fmt.Fprintf(w, "%s%s: segments %d to %d of %s, %s (%s)\n", would, a.Kind, a.From, a.To, name, cgroups.FormatBytes(a.Before), a.Reason)
	}
}

// report says what the round came to. While rounds go on, only what has something to say does.
func (c *retainCommand) report(r retention.Report) error {
	w := c.cmd.OutOrStdout()
	if c.json {
		return json.NewEncoder(w).Encode(struct {
			Report retention.Report `json:"report"`
		}{r})
	}
	if c.every != 0 && r.Compressed+r.Segments+r.Whole+r.Problems == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "%d streams take %s, the largest pod's %s; removed %s, saved %s by compression\n",
		r.Streams, cgroups.FormatBytes(r.Bytes), cgroups.FormatBytes(r.Largest), cgroups.FormatBytes(r.Removed), cgroups.FormatBytes(r.Saved))
	if err == nil && r.Backlog > 0 {
		_, err = fmt.Fprintf(w, "%s are beyond the limits, and sinks have not confirmed them\n", cgroups.FormatBytes(r.Backlog))
	}
	return err
}
