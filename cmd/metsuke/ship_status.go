// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/output"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/shipper"
	"metsuke.dev/metsuke/audit/shipper/config"
)

// shipStatus is one row of "metsuke ship status".
type shipStatus struct {
	Sink       string      `json:"sink"`
	Type       config.Type `json:"type"`
	Streams    int         `json:"streams"`    // that the sink has something of
	Behind     int         `json:"behind"`     // that have something which it does not have
	Backlog    int64       `json:"backlog"`    // bytes of that
	Lag        float64     `json:"lag"`        // seconds since the oldest record of that happened; 0: none
	Checkpoint bool        `json:"checkpoint"` // false: nothing was confirmed yet
}

func newShipStatusCommand() *cobra.Command {
	form := flagvalue.NewEnum("table", "table", "json")
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how far each sink is, by its checkpoints",
		Long: `Show how much each sink has not confirmed yet. It reads checkpoints and streams; no shipper needs to run, and none is asked. A checkpoint
is some seconds old while one runs.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadShipConfig(cmd)
			if err != nil {
				return err
			}
			var all []shipStatus
			for _, s := range c.Sinks {
				status, err := statusOf(c, s, time.Now())
				if err != nil {
					return fmt.Errorf("sink %s: %w", s.Name, err)
				}
				all = append(all, status)
			}
			if form.Value == "table" {
				return printShipStatus(cmd.OutOrStdout(), all)
			}
			for _, s := range all {
				if err := output.WriteJSON(cmd.OutOrStdout(), s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().VarP(form, "output", "o", "form of the output: table, json (an object a line)")
	flagvalue.Complete(cmd, "output", form.Words())
	return cmd
}

func statusOf(c *config.Config, s config.Sink, now time.Time) (shipStatus, error) {
	status := shipStatus{Sink: s.Name, Type: s.Type, Checkpoint: true}
	known, err := checkpoint.Load(c.Checkpoints, s.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		known, status.Checkpoint = &checkpoint.Checkpoint{}, false
	case err != nil:
		return status, err
	}
	backlog, err := shipper.Measure(c.Audit, known)
	if err != nil {
		return status, err
	}
	status.Streams, status.Behind, status.Backlog = len(known.Marks), backlog.Streams, backlog.Bytes
	if _, has := known.Marks[ledger.Name]; has {
		status.Streams--
	}
	if !backlog.Oldest.IsZero() {
		status.Lag = max(0, now.Sub(backlog.Oldest).Seconds())
	}
	return status, nil
}

func printShipStatus(w io.Writer, all []shipStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "SINK\tTYPE\tSTREAMS\tBEHIND\tBACKLOG\tLAG")
	for _, s := range all {
		lag := time.Duration(s.Lag * float64(time.Second)).Round(time.Second).String()
		if !s.Checkpoint {
			lag += " (nothing confirmed yet)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%s\n", s.Sink, s.Type, s.Streams, s.Behind, s.Backlog, lag)
	}
	return tw.Flush()
}
