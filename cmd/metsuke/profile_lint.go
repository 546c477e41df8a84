// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

func newProfileLintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lint [FILE|DIR|-]...",
		Short: "Print every fault of files, with place, field and suggestion",
		Long: `Check files, directories, or standard input (-) as one set, beside the built-in profiles: a profile that
one of them extends must be among them. Without arguments the node's own directory is checked.

Faults end in exit code 1. Warnings name what has no effect or hardly the one that was meant; they do not.`,
		Example: `  metsuke profile lint /etc/metsuke/profiles.d
  kubectl get agentprofile coder -o yaml | metsuke profile lint -`,
	}
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := lintFiles(cmd, args)
		if err != nil {
			return err
		}
		problems, summary := lint(files)
		if output.Value == "json" {
			err = terminal.JSON(cmd.OutOrStdout(), problems)
		} else {
			err = printProblems(cmd.OutOrStdout(), problems, summary)
		}
		if err != nil {
			return err
		}
		for _, p := range problems {
			if p.Severity == "error" {
				return errReported
			}
		}
		return nil
	}
	return cmd
}

// lintFiles reads what the arguments name.
func lintFiles(cmd *cobra.Command, args []string) ([]profile.File, error) {
	if len(args) == 0 {
		_, files, err := nodeFiles(cmd)
		return files, err
	}
	var files []profile.File
	for _, arg := range args {
		if arg == "-" {
			if err := notATerminal(cmd.InOrStdin()); err != nil {
				return nil, err
			}
			data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxInput))
			files = append(files, profile.File{Name: "(standard input)", Data: data, Err: err})
			continue
		}
		st, err := os.Stat(arg)
		switch {
		case err != nil:
			return nil, err
		case st.IsDir():
			more, err := profile.Files(os.DirFS(arg), arg)
			if err != nil {
				return nil, err
			}
			files = append(files, more...)
		default:
			data, err := readBounded(arg)
			files = append(files, profile.File{Name: arg, Data: data, Err: err})
		}
	}
	return files, nil
}

// maxInput is above what profile.Parse takes, so that it is what complains.
const maxInput = 1 << 20

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxInput))
}

// problem is one line of the output.
type problem struct {
	Severity string `json:"severity"` // error or warning
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
	text     string
}

func newProblem(severity string, e *profile.Error) problem {
	return problem{severity, e.File, e.Line, e.Column, e.Field, e.Msg, e.Hint, e.Error()}
}

// lint returns the problems of files as one set, and what was found if there are none.
func lint(files []profile.File) (problems []problem, summary string) {
	problems = []problem{}
	set, err := profile.Parse(files)
	if err != nil {
		for _, e := range profile.Errors(err) {
			problems = append(problems, newProblem("error", e))
		}
		if len(problems) == 0 {
			problems = append(problems, newProblem("error", &profile.Error{Msg: err.Error()}))
		}
		return problems, ""
	}
	own := 0
	for _, p := range set.Profiles() {
		if !p.BuiltIn {
			own++
		}
		problems = append(problems, compileProblems(set, p)...)
	}
	for _, e := range set.Warnings() {
		problems = append(problems, newProblem("warning", e))
	}
	return problems, fmt.Sprintf("%s, %s, %s", plural(len(files), "file"), plural(own, "profile"), plural(len(set.Bindings()), "binding"))
}

// compileProblems finds what only the compiler sees: that the filter does not fit.
func compileProblems(set *profile.Set, p profile.Info) (problems []problem) {
	fault := func(err error) {
		problems = append(problems, newProblem("error", &profile.Error{File: p.Source.File, Line: p.Source.Line, Field: "spec", Msg: err.Error()}))
	}
	r, err := set.Resolve(p.Name)
	if err != nil {
		fault(err)
		return problems
	}
	for _, a := range seccomp.KnownArches() {
		if !a.Native || r.Passthrough {
			continue
		}
		if _, err := seccomp.Compile(r.Policy(a.Arch, nil)); err != nil {
			fault(fmt.Errorf("profile %s on %s: %w", p.Name, a.Go, err))
		}
	}
	return problems
}

func printProblems(w io.Writer, problems []problem, summary string) error {
	faults := 0
	for _, p := range problems {
		text := p.text
		if p.Severity == "warning" {
			text = "warning: " + text
		} else {
			faults++
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	if faults > 0 {
		_, err := fmt.Fprintln(w, plural(faults, "fault"))
		return err
	}
	_, err := fmt.Fprintf(w, "%s: no faults\n", summary)
	return err
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
