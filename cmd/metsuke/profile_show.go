// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"metsuke.dev/metsuke/internal/terminal"
)

func newProfileShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a profile with all that it extends, and where each part came from",
		Long:              "Show a profile as pods get it: with all that it extends, over the node's floor, each part with its file and line.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeProfiles,
	}
	output := addOutputFlag(cmd, "text", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := loadNode(cmd)
		if err != nil {
			return err
		}
		r, err := n.resolve(args[0])
		if err != nil {
			return err
		}
		v := newProfileView(r)
		switch output.Value {
		case "json":
			return terminal.JSON(cmd.OutOrStdout(), v)
		case "yaml":
			return printYAML(cmd.OutOrStdout(), v)
		}
		return v.print(cmd.OutOrStdout())
	}
	return cmd
}

// printYAML writes what terminal.JSON would, as YAML: JSON is YAML, and keeps the order of the fields.
func printYAML(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	var block func(n *yaml.Node)
	block = func(n *yaml.Node) {
		n.Style &^= yaml.FlowStyle
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			n.Style = 0 // quotes only where they are needed
		}
		for _, c := range n.Content {
			block(c)
		}
	}
	block(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

func (v profileView) print(w io.Writer) error {
	p := &terminal.Printer{W: w}
	p.F("%s\ndigest %s\n", v.Name, v.Digest)
	if v.Passthrough {
		p.F("\nChanges nothing and audits nothing.\n")
		return p.Err
	}
	rows := [][]string{{"noNewPrivileges", v.NoNewPrivileges.Value, "", from(v.NoNewPrivileges.From)}}
	for _, l := range v.Limits {
		how := ""
		if l.BestEffort {
			how = "best effort"
		}
		rows = append(rows, []string{"limits." + l.Name, l.Value, how, from(l.From)})
	}
	for _, c := range v.Audit.Classes {
		rows = append(rows, []string{"audit.classes", c.Value, "", from(c.From)})
	}
	for _, c := range v.Audit.Syscalls {
		rows = append(rows, []string{"audit.syscalls", c.Value, "", from(c.From)})
	}
	rows = append(rows,
		[]string{"audit.delivery", v.Audit.Delivery.Value, "", from(v.Audit.Delivery.From)},
		[]string{"audit.onLoss", v.Audit.OnLoss.Value, "", from(v.Audit.OnLoss.From)},
		[]string{"audit.stallTimeout", v.Audit.StallTimeout.Value, "", from(v.Audit.StallTimeout.From)},
		[]string{"audit.durability", v.Audit.Durability.Value, "", from(v.Audit.Durability.From)},
		[]string{"audit.flushInterval", v.Audit.FlushInterval.Value, "", from(v.Audit.FlushInterval.From)})
	p.F("\n")
	p.Table([]string{"PART", "VALUE", "", "FROM"}, rows)
	for _, l := range v.Layers {
		p.F("\nseccomp of %s: %s by default", l.Name, l.Default)
		if l.DefaultErrno != "" {
			p.F(" with %s", l.DefaultErrno)
		}
		if len(l.Architectures) > 0 {
			p.F("; beside the native ABI also %s", strings.Join(l.Architectures, ", "))
		}
		p.F("\n")
		if len(l.Rules) == 0 {
			continue
		}
		rows = nil
		for _, r := range l.Rules {
			calls := strings.Join(r.Syscalls, " ")
			if r.condition != "" {
				calls += " if " + r.condition
			}
			rows = append(rows, []string{r.Action, r.ID, orDash(r.Errno), fmt.Sprintf("%s:%d", r.From.File, r.From.Line), calls})
		}
		p.Table([]string{"ACTION", "RULE", "ERROR", "FROM", "CALLS"}, rows)
	}
	return p.Err
}

func from(sources []fromView) string {
	var parts []string
	for _, s := range sources {
		parts = append(parts, fmt.Sprintf("%s (%s:%d)", s.Profile, s.File, s.Line))
	}
	return orDash(strings.Join(parts, ", "))
}
