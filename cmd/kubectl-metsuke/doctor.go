// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/reader"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/answer/form"
	"metsuke.dev/metsuke/node/doctor/report"
)

func newDoctorCommand(c *cluster) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [NODE]...",
		Short: "Show what is wrong with nodes, and how to mend it",
		Long: `Show which handlers are ready on each node, as its agent reported last; or have the doctor look at the named nodes now, and show
what it finds, what that breaks, and the exact fix. No pod is started, and nothing is mended: that is for metsuke doctor on the node.

It takes the ClusterRole metsuke-node-reader. The exit code is 1 if something failed.`,
		Example: `  kubectl metsuke doctor
  kubectl metsuke doctor worker-1 -o json`,
	}
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, nodes []string) error {
		client, _, err := c.connect()
		if err != nil {
			return err
		}
		if len(nodes) == 0 {
			return summary(cmd, client, output.Value == "json")
		}
		var failed bool
		for _, node := range nodes {
			healthy, err := examine(cmd, client, node, output.Value == "json")
			if err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
			failed = failed || !healthy
		}
		if failed {
			return errReported
		}
		return nil
	}
	return cmd
}

func examine(cmd *cobra.Command, client *reader.Client, node string, asJSON bool) (healthy bool, err error) {
	answer := form.DoctorReport{Report: &report.Report{}}
	if err := client.Get(cmd.Context(), &question.Question{About: question.Doctor, Node: node}, &answer); err != nil {
		return false, err
	}
	if answer.Report == nil || answer.Metadata.Name != node {
		return false, errOther
	}
	answer.Report.Clean() // the node says it
	if asJSON {
		err = terminal.JSON(cmd.OutOrStdout(), answer)
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "node %s, Metsuke %s\n", timeline.Escape(node), answer.Report.Version)
		err = answer.Report.Write(cmd.OutOrStdout())
	}
	return answer.Report.Healthy(), err
}

// summary shows what agents reported last.
func summary(cmd *cobra.Command, client *reader.Client, asJSON bool) error {
	list, err := client.Dynamic.Resource(v1alpha1.AgentNodes).List(cmd.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	var failed bool
	var rows [][]string
	for i := range list.Items {
		n, err := v1alpha1.Decode[v1alpha1.AgentNode](&list.Items[i])
		if err != nil {
			return err
		}
		for _, h := range n.Status.Handlers {
			ready := "yes"
			if !h.Ready {
				ready, failed = "no", true
			}
			rows = append(rows, []string{n.Name, cell(h.Name), ready, n.Status.Heartbeat.UTC().Format("2006-01-02 15:04:05 UTC"), cell(h.Reason)})
		}
		if len(n.Status.Handlers) == 0 {
			rows, failed = append(rows, []string{n.Name, "-", "no", n.Status.Heartbeat.UTC().Format("2006-01-02 15:04:05 UTC"), "no handler of Metsuke's is in force"}), true
		}
	}
	if asJSON {
		err = terminal.JSON(cmd.OutOrStdout(), list)
	} else {
		err = terminal.Table(cmd.OutOrStdout(), []string{"NODE", "HANDLER", "READY", "REPORTED", "REASON"}, rows)
	}
	if err == nil && failed {
		err = errReported
	}
	return err
}

func cell(s string) string {
	if s == "" {
		return "-"
	}
	return timeline.Escape(s)
}
