// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/profile"
)

func newProfileVocabularyCommand() *cobra.Command {
	var known []string
	for _, t := range profile.Vocabulary() {
		known = append(known, t.Name)
	}
	known = append(known, profile.Syscalls().Name)
	cmd := &cobra.Command{
		Use:       "vocabulary [TABLE]...",
		Short:     "Show the words that profiles can use",
		Long:      "Show all tables of words that profiles can use, or the named ones: " + strings.Join(known, ", ") + ".\nThe table of system calls is shown only if it is named.",
		ValidArgs: known,
		Args:      usage(cobra.OnlyValidArgs),
	}
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tables := profile.Vocabulary()
		if len(args) > 0 {
			tables = named(args)
		}
		if output.Value == "json" {
			return terminal.JSON(cmd.OutOrStdout(), newTableViews(tables))
		}
		p := &terminal.Printer{W: cmd.OutOrStdout()}
		for i, t := range tables {
			if i > 0 {
				p.F("\n")
			}
			p.F("%s\n", t.Title)
			heading := make([]string, len(t.Columns))
			for i, c := range t.Columns {
				heading[i] = strings.ToUpper(c)
			}
			p.Table(heading, t.Rows)
		}
		return p.Err
	}
	return cmd
}

func named(names []string) []profile.Table {
	var out []profile.Table
	for _, name := range names {
		for _, t := range append(profile.Vocabulary(), profile.Syscalls()) {
			if t.Name == name {
				out = append(out, t)
			}
		}
	}
	return out
}

type tableView struct {
	Name  string              `json:"name"`
	Title string              `json:"title"`
	Rows  []map[string]string `json:"rows"`
}

func newTableViews(tables []profile.Table) []tableView {
	var out []tableView
	for _, t := range tables {
		v := tableView{t.Name, t.Title, nil}
		for _, row := range t.Rows {
			m := map[string]string{}
			for i, c := range t.Columns {
				m[c] = row[i]
			}
			v.Rows = append(v.Rows, m)
		}
		out = append(out, v)
	}
	return out
}
