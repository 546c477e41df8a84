// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/dynamic"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"metsuke.dev/metsuke/cluster/controller"
	"metsuke.dev/metsuke/cluster/metrics"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/version"
)

// newControllerCommand returns "metsuke controller".
func newControllerCommand() *cobra.Command {
	var kubeconfig, listen, metricsAddress string
	var options controller.Options
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Decide which profiles and bindings of the cluster are in force",
		Long: `Decide which AgentProfiles and ProfileBindings of the cluster are in force, say so in their status,
count the nodes that have them, label the nodes that are ready for a handler, and tell the admission policies which
profiles each namespace may choose.

With --listen, be the door of the API reader.metsuke.dev too (kubectl metsuke): ask the API server who may ask what, and have the
agents of nodes answer.

It is meant to run as a Deployment. Of several replicas one is elected and works; all are doors.`,
		Example: `  metsuke controller --metrics-address :9464 --listen :8443
  metsuke controller --kubeconfig ~/.kube/config --namespace metsuke-system`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			counts, pulse := metrics.New(version.String()), exposition.NewPulse(stuck)
			options.Observed, options.Beat = counts.Round, pulse.Beat
			return withMetrics(ctx, metricsAddress, counts, pulse, nil, func(ctx context.Context) error {
				return runController(ctx, kubeconfig, listen, options, counts.Elected)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "", "how to reach the cluster (default that of the pod which it runs in)")
	flags.StringVar(&listen, "listen", "", "HOST:PORT at which the Service "+doorService+" reaches this replica (default: readers are not served)")
	flags.StringVar(&options.Namespace, "namespace", "", "where the Lease of the replicas is, and the ConfigMap for admission (default the pod's namespace)")
	flags.StringVar(&options.Nodes.Defaults.Profile, "default-profile", profile.Baseline, "default_profile of the nodes' config.toml")
	flags.StringSliceVar(&options.Nodes.AllowedAnnotations, "allowed-annotations", nil, "delegate.allowed_annotations of the nodes' config.toml")
	addMetricsFlag(cmd, &metricsAddress)
	_ = cmd.MarkFlagFilename("kubeconfig")
	return cmd
}

func runController(ctx context.Context, kubeconfig, listen string, options controller.Options, elected func(bool)) error {
	config, err := cluster(kubeconfig, "controller")
	if err != nil {
		return err
	}
	if options.Namespace == "" {
		if options.Namespace, err = podNamespace(); err != nil {
			return err
		}
	}
	identity, err := os.Hostname() // of a pod: its name
	if err != nil {
		return err
	}
	leases, err := coordination.NewForConfig(config)
	if err != nil {
		return err
	}
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 200, 400 // 15,000 nodes are labelled in little more than a minute
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	work := func(ctx context.Context) error {
		return controller.Elect(ctx, leases, options.Namespace, identity, func(ctx context.Context) error {
			c, err := controller.New(client, meta, options)
			if err != nil {
				return err
			}
			elected(true)
			defer elected(false)
			return c.Run(ctx)
		})
	}
	if listen == "" {
		return work(ctx)
	}
	d, err := newDoor(config, client, options.Namespace)
	if err != nil {
		return err
	}
	return together(ctx, work, func(ctx context.Context) error { return d.Serve(ctx, listen) })
}

// cluster returns how to reach the API server, as the part of Metsuke that it is for.
func cluster(kubeconfig, part string) (*rest.Config, error) {
	load := rest.InClusterConfig
	if kubeconfig != "" {
		load = func() (*rest.Config, error) { return clientcmd.BuildConfigFromFlags("", kubeconfig) }
	}
	config, err := load()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("this is no pod of a cluster: say with --kubeconfig how to reach one")
	}
	if err != nil {
		return nil, fmt.Errorf("the cluster: %w", err)
	}
	config.UserAgent = "metsuke-" + part + "/" + version.String()
	return config, nil
}

// namespaceFile is where a pod finds the name of its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func podNamespace() (string, error) {
	data, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", fmt.Errorf("the pod's namespace (say it with --namespace): %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
