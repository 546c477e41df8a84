// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/reader"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/answer/form"
	"metsuke.dev/metsuke/node/pods"
	"metsuke.dev/metsuke/node/pods/show"
)

// atOnce is how many nodes are asked at a time.
const atOnce = 16

func addNodeFlag(cmd *cobra.Command, node *string) {
	cmd.Flags().StringVar(node, "node", "", "ask this node (default: where the pods are now)")
}

func addOutputFlag(cmd *cobra.Command, forms ...string) *flagvalue.Enum {
	f := flagvalue.NewEnum(forms[0], forms...)
	cmd.Flags().VarP(f, "output", "o", "form of the output: "+fmt.Sprint(forms))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
	return f
}

func newPsCommand(c *cluster) *cobra.Command {
	var all bool
	var node string
	cmd := &cobra.Command{
		Use:   "ps [POD]...",
		Short: "List what runs under Metsuke, under which profile, and what it was denied",
		Long: `List the containers that run under Metsuke in a namespace, or in all, or those of the named pods. The columns are those of
metsuke ps on a node. Nodes are asked where pods with a RuntimeClass are; --node asks another.

With -o json each line is a pod. The exit code is 1 if something could not be found out; standard error says what.`,
		Example: `  kubectl metsuke ps -n team-a
  kubectl metsuke ps -A -o wide
  kubectl metsuke ps -A --node worker-1`,
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	addNodeFlag(cmd, &node)
	output := addOutputFlag(cmd, "table", "wide", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, namespace, err := c.connect()
		if err != nil {
			return err
		}
		if all {
			namespace = ""
		}
		nodes := []string{node}
		if node == "" {
			if nodes, err = client.Nodes(cmd.Context(), namespace); err != nil {
				return err
			}
		}
		list, failed := ask(cmd.Context(), client, namespace, nodes)
		if len(args) > 0 {
			list = slices.DeleteFunc(list, func(p pods.Pod) bool { return !slices.Contains(args, p.Name) })
		}
		return printPods(cmd, list, failed, output.Value)
	}
	return cmd
}

// ask asks nodes for their pods.
func ask(ctx context.Context, client *reader.Client, namespace string, nodes []string) (list []pods.Pod, failed []error) {
	var mu sync.Mutex
	var running sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, node := range nodes {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			found, err := ofNode(ctx, client, namespace, node)
			mu.Lock()
			defer mu.Unlock()
			list = append(list, found...)
			if err != nil {
				failed = append(failed, fmt.Errorf("node %s: %w", node, err))
			}
		})
	}
	running.Wait()
	slices.SortStableFunc(list, func(a, b pods.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), a.Created.Compare(b.Created))
	})
	slices.SortFunc(failed, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return list, failed
}

func ofNode(ctx context.Context, client *reader.Client, namespace, node string) (list []pods.Pod, err error) {
	var answer form.AgentPodList
	if err := client.Get(ctx, &question.Question{About: question.Pods, Node: node, Namespace: namespace}, &answer); err != nil {
		return nil, err
	}
	for _, item := range answer.Items {
		if item.Pod == nil || namespace != "" && item.Pod.Namespace != namespace {
			return list, errOther
		}
		list = append(list, *item.Pod)
	}
	return list, nil
}

// errOther is that a node answers for what it was not asked about: it lies.
var errOther = errors.New("it answers with what it was not asked about, which is left out: somebody may have taken the node over")

func printPods(cmd *cobra.Command, list []pods.Pod, failed []error, output string) error {
	var err error
	if output == "json" {
		err = show.JSON(cmd.OutOrStdout(), list)
	} else {
		err = show.Table(cmd.OutOrStdout(), list, output == "wide", time.Now())
	}
	if err != nil {
		return err
	}
	for _, f := range failed {
		fmt.Fprintf(cmd.ErrOrStderr(), "kubectl metsuke: %s\n", timeline.Escape(f.Error()))
	}
	for i := range list {
		if show.Problems(cmd.ErrOrStderr(), &list[i]) {
			err = errReported
		}
	}
	if len(failed) > 0 {
		err = errReported
	}
	return err
}

func newInspectCommand(c *cluster) *cobra.Command {
	var node string
	q := question.Question{About: question.Pod, Denials: 10}
	cmd := &cobra.Command{
		Use:   "inspect POD",
		Short: "Show all that is known of one pod: profile, receipt, limits against usage, counts, denials",
		Long: `Show all that is known of one pod: as metsuke inspect does on its node.

Calls are counted from the container's creation on. With --since they are counted in the stream, which takes the longer the
more there is.`,
		Example: `  kubectl metsuke inspect -n team-a coder
  kubectl metsuke inspect coder --since 10m -o json`,
		Args: usage(cobra.ExactArgs(1)),
	}
	addNodeFlag(cmd, &node)
	cmd.Flags().Var(&flagvalue.Time{T: &q.Since}, "since", "count the records from then on: 10m (ago), 2026-01-31T08:00:00Z")
	cmd.Flags().IntVar(&q.Denials, "denials", q.Denials, fmt.Sprintf("show the last so many denials, %d at most", tally.MaxRecent))
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if q.Denials < 0 || q.Denials > tally.MaxRecent {
			return cmd.FlagErrorFunc()(cmd, fmt.Errorf("--denials: must be a count of %d at most", tally.MaxRecent))
		}
		client, namespace, err := c.connect()
		if err != nil {
			return err
		}
		q.Namespace, q.Pod, q.Node = namespace, args[0], node
		if node == "" {
			if q.Node, err = client.NodeOf(cmd.Context(), namespace, q.Pod); err != nil {
				return err
			}
		}
		var answer form.AgentPod
		if err := client.Get(cmd.Context(), &q, &answer); err != nil {
			return err
		}
		if answer.Pod == nil || answer.Pod.Namespace != q.Namespace || answer.Pod.Name != q.Pod {
			return fmt.Errorf("node %s: %w", q.Node, errOther)
		}
		if output.Value == "json" {
			err = terminal.JSON(cmd.OutOrStdout(), answer.Pod)
		} else {
			err = show.Pod(cmd.OutOrStdout(), answer.Pod, time.Now(), terminal.Color(cmd.OutOrStdout()))
		}
		if err == nil && show.Problems(cmd.ErrOrStderr(), answer.Pod) {
			err = errReported
		}
		return err
	}
	return cmd
}
