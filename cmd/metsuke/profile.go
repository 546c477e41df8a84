// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/profile"
)

// newProfileCommand returns "metsuke profile".
func newProfileCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Check and show profiles and bindings",
		Long: `Check and show the AgentProfiles and ProfileBindings of this node, or of any directory.

The directory is that of --profiles, else the one that the configuration names.`,
	}
	group(cmd)
	cmd.PersistentFlags().String("config", "", "configuration file (default "+config.DefaultPath+", if it exists)")
	cmd.PersistentFlags().String("profiles", "", "directory of the profiles (default the configuration's)")
	_ = cmd.MarkPersistentFlagFilename("config", "toml")
	_ = cmd.MarkPersistentFlagDirname("profiles")
	cmd.AddCommand(newProfileLintCommand(), newProfileListCommand(), newProfileShowCommand(), newProfileRenderCommand(), newProfileVocabularyCommand())
	return cmd
}

// node is what the flags of "metsuke profile" lead to.
type node struct {
	config *config.Config
	set    *profile.Set
}

// loadNode reads the configuration and the profiles that the flags name.
func loadNode(cmd *cobra.Command) (*node, error) {
	c, files, err := nodeFiles(cmd)
	if err != nil {
		return nil, err
	}
	set, err := profile.Parse(files)
	if err != nil {
		return nil, fmt.Errorf("the profiles have faults:\n%w", err)
	}
	return &node{c, set}, nil
}

func nodeFiles(cmd *cobra.Command) (*config.Config, []profile.File, error) {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, nil, err
	}
	c, err := config.LoadOrDefault(file)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration: %w", err)
	}
	dir, err := cmd.Flags().GetString("profiles")
	if err != nil {
		return nil, nil, err
	}
	if dir != "" {
		c.Directories.Profiles, c.Directories.ProfilesNamed = dir, true
	}
	fsys, err := c.OpenProfiles()
	if err != nil || fsys == nil {
		return c, nil, err
	}
	files, err := profile.Files(fsys, c.Directories.Profiles)
	return c, files, err
}

// resolve returns a profile as a pod gets it, over the node's floor.
func (n *node) resolve(name string) (*profile.Resolved, error) {
	r, err := n.set.Resolve(name)
	if err != nil {
		return nil, err
	}
	if n.config.Floor == "" {
		return r, nil
	}
	floor, err := n.set.Resolve(n.config.Floor)
	if err != nil {
		return nil, fmt.Errorf("floor of the configuration: %w", err)
	}
	return r.WithFloor(floor), nil
}

// completeProfiles completes the name of a profile.
func completeProfiles(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	n, err := loadNode(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range n.set.Profiles() {
		out = append(out, cobra.CompletionWithDesc(p.Name, p.Description))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// addOutputFlag adds -o with the given forms, of which the first is the default.
func addOutputFlag(cmd *cobra.Command, forms ...string) *flagvalue.Enum {
	f := flagvalue.NewEnum(forms[0], forms...)
	cmd.Flags().VarP(f, "output", "o", "form of the output: "+strings.Join(forms, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
	return f
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// notATerminal refuses to wait for a person who probably forgot an argument.
func notATerminal(in io.Reader) error {
	if f, ok := in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			return errors.New("standard input is a terminal; give files, or pipe a document")
		}
	}
	return nil
}
