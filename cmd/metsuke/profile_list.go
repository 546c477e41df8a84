// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/profile"
)

func newProfileListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List profiles, and the bindings that give them to namespaces",
		Args:  usage(cobra.NoArgs),
	}
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := loadNode(cmd)
		if err != nil {
			return err
		}
		if output.Value == "json" {
			return terminal.JSON(cmd.OutOrStdout(), newListView(n))
		}
		return printList(cmd, n)
	}
	return cmd
}

func printList(cmd *cobra.Command, n *node) error {
	var rows [][]string
	for _, p := range n.set.Profiles() {
		rows = append(rows, []string{p.Name, orDash(strings.Join(p.Extends, ",")), orDash(strings.Join(p.Namespaces, ",")), place(p.Source), orDash(p.Description)})
	}
	w := cmd.OutOrStdout()
	if err := terminal.Table(w, []string{"PROFILE", "EXTENDS", "NAMESPACES", "FROM", "DESCRIPTION"}, rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows = nil
	for _, b := range n.set.Bindings() {
		rows = append(rows, []string{b.Name, strings.Join(b.Namespaces, ","), orDash(b.Default), orDash(strings.Join(b.Allowed, ",")), place(b.Source)})
	}
	if len(rows) > 0 {
		if err := terminal.Table(w, []string{"BINDING", "NAMESPACES", "DEFAULT", "ALLOWED", "FROM"}, rows); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "Namespaces without a binding get %s. Floor: %s.\n", n.config.DefaultProfile, orNone(n.config.Floor))
	return err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// place is where a document or a part of it stands.
func place(s profile.Source) string { return fmt.Sprintf("%s:%d", s.File, s.Line) }

type listView struct {
	DefaultProfile string        `json:"defaultProfile"`
	Floor          string        `json:"floor,omitempty"`
	Profiles       []infoView    `json:"profiles"`
	Bindings       []bindingView `json:"bindings"`
}

type infoView struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	BuiltIn     bool     `json:"builtIn,omitempty"`
	Extends     []string `json:"extends,omitempty"`
	Namespaces  []string `json:"namespaces,omitempty"`
	From        fromView `json:"from"`
}

type bindingView struct {
	Name           string   `json:"name"`
	Namespaces     []string `json:"namespaces"`
	Default        string   `json:"default,omitempty"`
	Allowed        []string `json:"allowed,omitempty"`
	ContainerRules int      `json:"containerRules,omitempty"`
	From           fromView `json:"from"`
}

func newListView(n *node) listView {
	v := listView{DefaultProfile: n.config.DefaultProfile, Floor: n.config.Floor, Profiles: []infoView{}, Bindings: []bindingView{}}
	for _, p := range n.set.Profiles() {
		v.Profiles = append(v.Profiles, infoView{p.Name, p.Description, p.BuiltIn, p.Extends, p.Namespaces, newFromView(p.Source)})
	}
	for _, b := range n.set.Bindings() {
		v.Bindings = append(v.Bindings, bindingView{b.Name, b.Namespaces, b.Default, b.Allowed, b.Containers, newFromView(b.Source)})
	}
	return v
}
