// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/install"
)

func newNodeStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how Metsuke is installed on a node",
		Long: `status shows the versions that are present and what runs them, the handlers that are wanted, written and in
force, and what install would do.

It exits with 0 if the node is as install would leave it, and with 3 if it is not.`,
		Example: `  metsuke node status
  metsuke node status --root /host -o json | jq .toDo`,
		Args: usage(cobra.NoArgs),
	}
	f := nodeFlags{timeout: time.Minute}
	f.add(cmd)
	f.addSource(cmd)
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := interruptible(cmd)
		defer cancel()
		source, err := f.source(ctx)
		if err != nil {
			return err
		}
		n, err := f.open(ctx, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer func() { _ = n.Tree.Close() }()
		s, err := n.Status(ctx, source)
		if err != nil {
			return err
		}
		show := printStatus
		if output.Value == "json" {
			show = func(w io.Writer, s *install.Status) error { return terminal.JSON(w, s) }
		}
		if err := show(cmd.OutOrStdout(), s); err != nil {
			return err
		}
		if !s.Installed {
			return errDiffers
		}
		return nil
	}
	return cmd
}

func printStatus(w io.Writer, s *install.Status) error {
	var rows [][]string
	for _, v := range s.Versions {
		mark := ""
		switch {
		case v.Linked:
			mark = "linked"
		case v.Name == s.Previous:
			mark = "the one before"
		}
		rows = append(rows, []string{v.Name, orDash(mark), strconv.Itoa(len(v.Processes)), yes(v.Ours)})
	}
	if err := terminal.Table(w, []string{"VERSION", "STATE", "PROCESSES", "INSTALLED BY THIS COMMAND"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, h := range s.Handlers {
		rows = append(rows, []string{h.Name, orDash(h.Plain), yes(h.Wanted), yes(h.Written), yes(h.InForce), strconv.Itoa(h.Pods), orDash(h.File)})
	}
	_, _ = fmt.Fprintln(w)
	if err := terminal.Table(w, []string{"HANDLER", "IN FRONT OF", "WANTED", "WRITTEN", "IN FORCE", "PODS", "FILE"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\ncontainerd %s: %s, configuration %s, drop-in %s\n", s.Containerd.Version, s.Containerd.Binary, s.Containerd.Config, orNone(s.Containerd.DropIn))
	for _, note := range s.Notes {
		_, err = fmt.Fprintln(w, "note: "+note)
	}
	switch {
	case s.Problem != "":
		_, err = fmt.Fprintln(w, "install would refuse: "+s.Problem)
	case s.Interrupted:
		_, err = fmt.Fprintln(w, "a change was interrupted: run metsuke node install, or metsuke node uninstall")
	}
	for _, step := range s.ToDo {
		_, err = fmt.Fprintln(w, "install would "+step)
	}
	return err
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
