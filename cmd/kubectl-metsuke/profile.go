// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metsuke.dev/metsuke/cluster/reader"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/internal/terminal"
)

func newProfileCommand(c *cluster) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Show the cluster's profiles and bindings, and how far they have come",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newProfileListCommand(c), newProfileShowCommand(c))
	return cmd
}

func newProfileListCommand(c *cluster) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List profiles and bindings: whether the newest is in force, and on how many nodes",
		Args:  usage(cobra.NoArgs),
	}
	output := addOutputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, _, err := c.connect()
		if err != nil {
			return err
		}
		var all []*v1alpha1.Document
		for _, resource := range []schema.GroupVersionResource{v1alpha1.AgentProfiles, v1alpha1.ProfileBindings} {
			list, err := client.Dynamic.Resource(resource).List(cmd.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for i := range list.Items {
				d, err := v1alpha1.Decode[v1alpha1.Document](&list.Items[i])
				if err != nil {
					return err
				}
				all = append(all, d)
			}
		}
		if output.Value == "json" {
			return terminal.JSON(cmd.OutOrStdout(), all)
		}
		var rows [][]string
		for _, d := range all {
			rows = append(rows, profileRow(d))
		}
		return terminal.Table(cmd.OutOrStdout(), []string{"KIND", "NAME", "GENERATION", "IN FORCE", "DIGEST", "NODES", "REFUSED", "ACCEPTED"}, rows)
	}
	return cmd
}

func profileRow(d *v1alpha1.Document) []string {
	inForce, digest, accepted := "-", "-", "not looked at yet"
	if f := d.Status.InForce; f != nil {
		inForce, digest = strconv.FormatInt(f.Generation, 10), cell(f.Digest[:min(len(f.Digest), 12)])
	}
	for _, c := range d.Status.Conditions {
		if c.Type == v1alpha1.Accepted {
			if accepted = "yes"; c.Status != metav1.ConditionTrue {
				accepted = "no: " + c.Message
			}
		}
	}
	n := d.Status.Nodes
	return []string{
		cell(d.Kind), cell(d.Name), strconv.FormatInt(d.Generation, 10), inForce, digest,
		fmt.Sprintf("%d/%d", n.Acknowledged, n.Total), strconv.Itoa(n.Refused), cell(accepted),
	}
}

func newProfileShowCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show the version of a profile that is in force, as nodes have it",
		Long: `Show the version of a profile that is in force, as JSON. What it comes to with all that it extends, metsuke profile show says on
a node.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := c.connect()
			if err != nil {
				return err
			}
			return showProfile(cmd, client, args[0])
		},
	}
}

func showProfile(cmd *cobra.Command, client *reader.Client, name string) error {
	object, err := client.Dynamic.Resource(v1alpha1.AcceptedDocuments).Get(cmd.Context(), v1alpha1.AcceptedName("AgentProfile", name), metav1.GetOptions{})
	if err != nil {
		return err
	}
	d, err := v1alpha1.Decode[v1alpha1.AcceptedDocument](object)
	if err != nil {
		return err
	}
	return terminal.JSON(cmd.OutOrStdout(), map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": d.Spec.Kind, "metadata": map[string]any{"name": d.Spec.Name, "generation": d.Spec.Generation},
		"spec": d.Spec.Document,
	})
}
