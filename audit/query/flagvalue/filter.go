// SPDX-License-Identifier: Apache-2.0

package flagvalue

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/query"
)

// FilterHelp says what the flags of AddFilter have in common, for the help of a command.
const FilterHelp = `Filters that are given more than once, or with several values (a,b), choose what has any of the values; different filters must all
hold. --path and --addr take one pattern each time: in a path * stands for anything but a slash, ** for anything, ? for one
character. Paths and addresses are as callers showed them: a lead, never a proof.`

// AddFilter adds to a command the flags that choose records. Classes of the profile's vocabulary are completed; classes may be nil.
func AddFilter(cmd *cobra.Command, f *query.Filter, classes func() []string) {
	flags := cmd.Flags()
	verdicts, kinds := audit.Verdicts(), audit.Kinds()
	AddScope(cmd, f)
	flags.StringSliceVar(&f.Profiles, "profile", nil, "only events under this profile")
	flags.StringSliceVar(&f.Execs, "exec", nil, "only events of the exec session with this id, or this beginning of it; - for what no session began")
	flags.Var(&Terms[audit.Kind]{List: &f.Kinds, Vocabulary: kinds}, "kind", "only events of this kind: "+Names(kinds))
	flags.StringSliceVar(&f.Classes, "class", nil, "only system calls of this audit class")
	flags.Var(&Terms[audit.Verdict]{List: &f.Verdicts, Vocabulary: verdicts}, "verdict", "only system calls with this verdict: "+Names(verdicts))
	flags.StringSliceVar(&f.Syscalls, "syscall", nil, "only system calls of this name")
	flags.Var(&patterns[query.Path]{&f.Paths, query.ParsePath}, "path", "only system calls with such a path: /etc/shadow, /etc/**, '**/.ssh/*'")
	flags.Var(&patterns[query.Address]{&f.Addresses, query.ParseAddress}, "addr", "only system calls with such an address of a socket: 10.0.0.0/8, :443, [fd00::/8]:443, unix:/run/**")
	flags.Var((*process)(&f.Process), "process", "only events of the process with this number and of those that descend from it; PID@SEQ for the one that had it in the record of that number")
	Complete(cmd, "kind", words(kinds))
	Complete(cmd, "verdict", words(verdicts))
	Complete(cmd, "exec", []string{query.NoExec})
	if classes != nil {
		_ = cmd.RegisterFlagCompletionFunc("class", func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return behindComma(classes(), word), cobra.ShellCompDirectiveNoFileComp
		})
	}
}

// AddScope adds to a command those of the flags of AddFilter that say when, and of which containers.
func AddScope(cmd *cobra.Command, f *query.Filter) {
	flags := cmd.Flags()
	flags.Var(&Time{T: &f.Since}, "since", "only events from then on: 10m (ago), 2026-01-31T08:00:00Z")
	flags.Var(&Time{T: &f.Until}, "until", "only events before then, likewise")
	flags.StringSliceVarP(&f.Containers, "container", "c", nil, "only events of the container of this name")
}

// Complete has the shell complete the values of a flag.
func Complete(cmd *cobra.Command, flag string, values []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return behindComma(values, word), cobra.ShellCompDirectiveNoFileComp
	})
}

// behindComma returns the values behind those that a word has already.
func behindComma(values []string, word string) []string {
	have := ""
	if i := strings.LastIndexByte(word, ','); i >= 0 {
		have = word[:i+1]
	}
	var out []string
	for _, v := range values {
		if !slices.Contains(strings.Split(have, ","), v) {
			out = append(out, have+v)
		}
	}
	return out
}

func words(terms []audit.Term) (out []string) {
	for _, t := range terms {
		out = append(out, t.Name)
	}
	return out
}

// patterns is a list of patterns, one each time: they may have commas.
type patterns[T any] struct {
	list  *[]T
	parse func(string) (T, error)
}

func (f *patterns[T]) String() string { return "" }
func (f *patterns[T]) Type() string   { return "pattern" }

func (f *patterns[T]) Set(s string) error {
	p, err := f.parse(s)
	if err == nil {
		*f.list = append(*f.list, p)
	}
	return err
}

// process is PID or PID@SEQ.
type process query.Process

func (f *process) String() string { return "" }
func (f *process) Type() string   { return "pid" }

func (f *process) Set(s string) error {
	p, err := query.ParseProcess(s)
	*f = process(p)
	return err
}
