// SPDX-License-Identifier: Apache-2.0

// Command kubectl-metsuke is a plugin of kubectl: it shows what runs under Metsuke in a cluster, and what it did, by the rights that its
// user has there. It runs where people are: nothing in it is of Linux.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/cluster/reader"
	"metsuke.dev/metsuke/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// What the process exits with.
const (
	exitFailure = 1
	exitUsage   = 2
)

// errReported is returned by a command that has already printed what went wrong.
var errReported = errors.New("reported")

// errUsage is wrapped by a mistake in how a command was called.
var errUsage = errors.New("wrong usage")

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
	default:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(errs, "kubectl metsuke: %s\n", timeline.Escape(line))
		}
	}
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitFailure
}

// cluster is where a command asks.
type cluster struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides clientcmd.ConfigOverrides
}

// connect returns a client, and the namespace that is meant.
func (c *cluster) connect() (client *reader.Client, namespace string, err error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(c.rules, &c.overrides)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", err
	}
	config.UserAgent = "kubectl-metsuke/" + version.String()
	config.QPS, config.Burst = 50, 100
	if namespace, _, err = loader.Namespace(); err != nil {
		return nil, "", err
	}
	client, err = reader.New(config)
	return client, namespace, err
}

func newRootCommand() *cobra.Command {
	c := &cluster{rules: clientcmd.NewDefaultClientConfigLoadingRules()}
	cmd := &cobra.Command{
		Use:   "kubectl-metsuke",
		Short: "What runs under Metsuke in a cluster, and what it did",
		Long: `Show what runs under Metsuke in a cluster, and what it did: from the agents of its nodes, through the API server, by the
rights that you have there (get and list agentpods and agentpods/log in the API group reader.metsuke.dev: the ClusterRole
metsuke-reader).

It exits with 0, with 1 if something is wrong, and with 2 if it was called wrongly.`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl metsuke"},
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see '%s --help'", errUsage, err, cmd.CommandPath())
	})
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.rules.ExplicitPath, "kubeconfig", "", "how to reach the cluster (default as kubectl)")
	clientcmd.BindOverrideFlags(&c.overrides, flags, clientcmd.RecommendedConfigOverrideFlags(""))
	_ = cmd.MarkPersistentFlagFilename("kubeconfig")
	cmd.AddCommand(newPsCommand(c), newInspectCommand(c), newTailCommand(c), newDoctorCommand(c), newProfileCommand(c))
	return cmd
}

// usage makes what check refuses a mistake in usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return cmd.FlagErrorFunc()(cmd, err)
		}
		return nil
	}
}
