// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/log"
	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/node/agent"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/doctor"
	"metsuke.dev/metsuke/node/metrics"
	"metsuke.dev/metsuke/node/mirror"
	"metsuke.dev/metsuke/node/traces"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/version"
)

// agentFlags say which node the agent is of.
type agentFlags struct {
	place                doctor.Place
	kubeconfig           string
	node, profiles       string
	listen               string
	settle, acknowledged time.Duration
	metrics              string
}

func newNodeAgentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent --node NAME",
		Short: "Keep a node's profiles in step with the cluster, and report what the doctor says",
		Long: `Put the profiles and bindings that are in force in the cluster in force on this node, in one file of its profile
directory, and report that, and which handlers the doctor finds ready, in the node's AgentNode. With --listen, answer what
readers ask about the node (kubectl metsuke): the cluster's controller decides who may ask, and nobody else is answered.

With OTEL_TRACES_EXPORTER=otlp in its environment it sends a trace of each container's start to the collector that OpenTelemetry's other
variables name (docs/metrics.md).

It is meant to run in a DaemonSet. Pods do not need it: while the API server cannot be reached, or the agent does not run,
the last set that was good stays in force.`,
		Example: `  metsuke node agent --root /host --node "$NODE_NAME"
  metsuke node agent --node "$NODE_NAME" --metrics-address :9464
  metsuke node agent --kubeconfig /etc/kubernetes/kubelet.conf --node "$(hostname)"`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkPlace(f.place), f.check()); err != nil {
				return cmd.FlagErrorFunc()(cmd, err)
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return f.run(ctx)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.node, "node", "", "the node's name in the cluster")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster (default that of the pod which it runs in)")
	flags.StringVar(&f.place.Root, "root", "/", "the node's root directory; all other paths are below it")
	flags.StringVar(&f.place.Address, "containerd-address", cri.DefaultEndpoint, "socket of containerd")
	flags.StringVar(&f.profiles, "profiles", config.Default().Directories.Profiles, "profile directory to write into")
	flags.StringVar(&f.listen, "listen", "", "HOST:PORT at which the controller reaches this agent (default: readers are not answered)")
	flags.DurationVar(&f.settle, "settle", time.Second, "how long documents may take to arrive that change together")
	flags.DurationVar(&f.acknowledged, "acknowledge-within", 20*time.Second, "within what time a change is reported, at random, so that not all nodes report at once")
	addMetricsFlag(cmd, &f.metrics)
	_ = cmd.MarkFlagFilename("kubeconfig")
	_ = cmd.MarkFlagDirname("root")
	return cmd
}

func (f *agentFlags) check() error {
	switch {
	case f.node == "":
		return errors.New("--node is required: the node's name in the cluster")
	case !filepath.IsAbs(f.profiles):
		return fmt.Errorf("--profiles: %q is not an absolute path", f.profiles)
	case f.settle < 0 || f.acknowledged < 0:
		return errors.New("--settle and --acknowledge-within must not be negative")
	}
	return nil
}

func (f *agentFlags) run(ctx context.Context) error {
	kube, err := cluster(f.kubeconfig, "node")
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(kube)
	if err != nil {
		return err
	}
	files, err := tree.Open(f.place.Root)
	if err != nil {
		return err
	}
	defer func() { _ = files.Close() }()
	answer, endpoint, err := f.answers(ctx, client)
	if err != nil {
		return err
	}
	defer answer()
	counts, pulse := metrics.New(f.place.Root, version.String()), exposition.NewPulse(stuck)
	count, end, err := f.traces(ctx, counts)
	if err != nil {
		return err
	}
	defer end()
	a, err := agent.New(agent.Config{
		Endpoint: endpoint,
		Client:   client, Node: f.node, Version: version.String(), Settle: f.settle, Spread: f.acknowledged, Examine: f.examine,
		Mirror:   &mirror.Mirror{Tree: files, Dir: f.profiles, Check: agent.Needs(files, f.profiles)},
		Reported: func(r agent.Report) { counts.Report(toMetrics(r)) },
		Beat:     pulse.Beat,
	})
	if err != nil {
		return err
	}
	return withMetrics(ctx, f.metrics, counts, pulse, count, a.Run)
}

// traces has the starts of containers sent to a collector, if the environment names one. It returns what is to run beside the agent, nil if
// nobody wants to know what it finds, and what is to be called at the end.
func (f *agentFlags) traces(ctx context.Context, counts *metrics.Metrics) (count func(context.Context), end func(), err error) {
	spans, err := traces.New(ctx, traces.Config{
		Node: f.node, Version: version.String(), Since: time.Now().Add(-traces.Before), Sent: counts.Spans,
	})
	switch {
	case err != nil:
		return nil, nil, err
	case spans != nil:
		counts.TellStarts(spans.Started)
		return counts.Run, spans.Close, nil
	case f.metrics != "":
		return counts.Run, func() {}, nil
	}
	return nil, func() {}, nil
}

// examine asks the doctor about each handler.
func (f *agentFlags) examine(ctx context.Context) []v1alpha1.HandlerStatus {
	found, err := doctor.Examine(ctx, f.place)
	if err != nil {
		log.G(ctx).WithError(err).Error("the doctor cannot look at the node")
		return nil
	}
	var all []v1alpha1.HandlerStatus
	for _, h := range found {
		if !h.Ready {
			log.G(ctx).WithField("handler", h.Handler).WithField("reason", h.Reason).Warn("a handler is not ready")
		}
		all = append(all, v1alpha1.HandlerStatus{Name: h.Handler, Ready: h.Ready, Reason: h.Reason})
	}
	return all
}
