// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/seccomp"
)

// auditReading is what the commands have in common that read records.
type auditReading struct {
	filter query.Filter
	index  string
}

func (a *auditReading) addFlags(cmd *cobra.Command) {
	flagvalue.AddFilter(cmd, &a.filter, auditClasses)
	cmd.Flags().StringSliceVar(&a.filter.Namespaces, "namespace", nil, "only events of this namespace")
	a.addIndexFlag(cmd)
}

// addIndexFlag adds --index, and completes arguments with the names of pods.
func (a *auditReading) addIndexFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.index, "index", defaultIndex(), "directory of what is known of segments that were read before, made if need be; empty: none")
	cmd.Flags().Lookup("index").DefValue = "metsuke/index in the user's cache" // in pages that are made somewhere else too
	_ = cmd.MarkFlagDirname("index")
	cmd.ValidArgsFunction = completePods
}

func auditClasses() (names []string) {
	for _, c := range seccomp.Classes() {
		names = append(names, c.Name)
	}
	return names
}

// defaultIndex is in the user's cache: who reads streams does not write where they are.
func defaultIndex() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "metsuke", "index")
}

// read reads the records that were chosen, until it is interrupted. What had to be passed over goes to standard error, after flush, and is
// an error in the end.
func (a *auditReading) read(cmd *cobra.Command, pods []string, o query.Options, flush func() error, emit func(query.Entry) error) error {
	dir, err := auditDir(cmd)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	warn := func(what string, err error) {
		_ = flush() // keep the order of the two outputs on a terminal; the next write fails as well
		fmt.Fprintf(cmd.ErrOrStderr(), "metsuke: %s: %s\n", what, timeline.Escape(err.Error()))
	}
	if a.index != "" {
		if o.Index, err = index.Open(a.index); err != nil {
			o.Index = nil
			warn("without an index", err)
		}
	}
	var problems int
	o.Problem = func(err error) {
		problems++
		warn("passed over", err)
	}
	f := a.filter
	f.Pods = pods
	err = query.Read(ctx, dir, &f, o, emit)
	if o.Index != nil && o.Index.Err() != nil {
		warn("no further index is kept", o.Index.Err())
	}
	if err != nil {
		return err
	}
	if problems > 0 {
		return passedOver(problems)
	}
	return nil
}

// passedOver is the error for so many places that could not be read; the rest was.
type passedOver int

func (n passedOver) Error() string {
	return fmt.Sprintf("%d places of the streams could not be read", int(n))
}
