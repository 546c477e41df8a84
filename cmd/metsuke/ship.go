// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/shipper"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/sink/file"
	"metsuke.dev/metsuke/audit/sink/kafka"
	"metsuke.dev/metsuke/audit/sink/nats"
	"metsuke.dev/metsuke/audit/sink/otlp"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/version"
)

// heapLimit is what the collector of garbage keeps the heap below, if it can, in bytes: what the program has from its start, and for each sink
// what its library needs, and a batch in the forms that it goes through.
func heapLimit(c *config.Config) int64 {
	limit := int64(12 << 20)
	for _, s := range c.Sinks {
		limit += 4<<20 + 4*s.Batch.Bytes
	}
	return limit
}

func newShipCommand() *cobra.Command {
	var node, address string
	var once bool
	cmd := &cobra.Command{
		Use:   "ship",
		Short: "Ship the audit streams of this node to collectors, brokers and files",
		Long: `Ship all records of all audit streams of this node to the sinks that the configuration names, and go on with what comes, until told to
end. One of these runs on a node. Each sink has its own checkpoints: what it has confirmed is not sent again, all else is, so each record
arrives at least once, and its id tells one that came twice.`,
		Example: `  metsuke ship
  metsuke ship --node "$NODE_NAME" --metrics-address :9465
  metsuke ship --once --config export.toml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadShipConfig(cmd)
			if err != nil {
				return err
			}
			if node == "" {
				if node, err = os.Hostname(); err != nil {
					return fmt.Errorf("the node's name: %w; say --node", err)
				}
			}
			debug.SetMemoryLimit(heapLimit(c))
			ctx, stop := interruptible(cmd)
			defer stop()
			sinks, err := openSinks(ctx, c, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			metrics, pulse := shipper.NewMetrics(version.String()), exposition.NewPulse(stuck)
			var left error // what was left counts, also when it was told to end
			err = withMetrics(ctx, address, metrics, pulse, nil, func(ctx context.Context) error {
				err := shipper.Run(ctx, shipper.Options{
					Root: c.Audit, Checkpoints: c.Checkpoints, Node: node, Sinks: sinks, Metrics: metrics, Once: once, Beat: pulse.Beat,
				})
				if errors.Is(err, shipper.ErrLeft) {
					left = err
				}
				return err
			})
			return cmp.Or(err, left)
		},
	}
	cmd.PersistentFlags().String("config", config.DefaultPath, "the shipper's configuration file")
	_ = cmd.MarkPersistentFlagFilename("config", "toml")
	cmd.Flags().StringVar(&node, "node", "", "the node's name, for what is told of the node itself (default that of the host)")
	cmd.Flags().BoolVar(&once, "once", false, "ship what is there, and end")
	addMetricsFlag(cmd, &address)
	cmd.AddCommand(newShipStatusCommand(), newShipCheckCommand())
	return cmd
}

func loadShipConfig(cmd *cobra.Command) (*config.Config, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	return config.Load(path)
}

// openSinks opens all sinks. None of them connects yet.
func openSinks(ctx context.Context, c *config.Config, out io.Writer) (all []shipper.Destination, err error) {
	for i := range c.Sinks {
		s, err := openSink(ctx, &c.Sinks[i], out)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", c.Sinks[i].Name, err)
		}
		all = append(all, shipper.Destination{Config: c.Sinks[i], Sink: s})
	}
	return all, nil
}

func openSink(ctx context.Context, c *config.Sink, out io.Writer) (sink.Sink, error) {
	switch c.Type {
	case config.TypeOTLP:
		return otlp.New(ctx, c, version.String())
	case config.TypeKafka:
		return kafka.New(c.Kafka), nil
	case config.TypeNATS:
		return nats.New(c.NATS), nil
	case config.TypeFile:
		return file.New(c.File), nil
	case config.TypeStdout:
		return file.NewStdout(out), nil
	}
	return nil, fmt.Errorf("no type %q", c.Type)
}

func newShipCheckCommand() *cobra.Command {
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Connect to each sink, and say what is wrong",
		Long:  `Read the configuration, connect to each sink and show it the credentials, without shipping anything. It exits with 1 if one cannot be shipped to.`,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadShipConfig(cmd)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			sinks, err := openSinks(ctx, c, io.Discard)
			if err != nil {
				return err
			}
			bad := false
			for _, d := range sinks {
				err := checkSink(ctx, d.Sink, patience)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "ok    %s\n", d.Config.Name)
					continue
				}
				bad = true
				fmt.Fprintf(cmd.OutOrStdout(), "FAIL  %s: %s\n", d.Config.Name, cell(err.Error()))
			}
			if bad {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&patience, "timeout", 10*time.Second, "how long a sink may take to answer")
	return cmd
}

func checkSink(ctx context.Context, s sink.Sink, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return errors.Join(s.Check(ctx), s.Close(ctx))
}
