// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/report"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/audit/verify"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/version"
)

func newAuditReportCommand() *cobra.Command {
	var (
		reading  auditReading
		keyFiles []string
		file     string
	)
	cmd := &cobra.Command{
		Use:   "report POD | NAMESPACE/POD",
		Short: "Write a page to look at: what an agent did, and whether the evidence holds",
		Long: `Verify the streams of a pod, and write what is in them as a page for a browser: its processes on a time line, what was denied, addresses,
files, memory and limits, gaps. The page is one file. It loads nothing and needs no network, and what a workload wrote cannot run in it.

Without -o it is written to POD.html in the working directory, which must not be there yet; -o replaces the file that it names, and
-o - writes to standard output. The file is replaced as a whole or not at all, and only its owner can read it.

It takes constant memory; the page says what it leaves out.

It exits with 0 if the page was written and all is proven, with 1 if it could not be written or a fault was found, with 2 if it was
called wrongly, and with 3 if the evidence cannot be judged: there is no key, or a stream was never signed.`,
		Example: `  metsuke audit report team-a/coder
  metsuke audit report coder --key node-1.pem -o coder.html
  metsuke audit report coder --dir ./evidence/audit --since 24h -o - > coder.html`,
		Args: usage(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "file to write, which is replaced if it is there; - for standard output (default POD.html, which is not)")
	_ = cmd.MarkFlagFilename("output", "html")
	flagvalue.AddScope(cmd, &reading.filter)
	reading.addIndexFlag(cmd)
	addKeyFlag(cmd, &keyFiles)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, err := newPageFile(cmd, file, args[0])
		if err != nil {
			return err
		}
		keys, err := verifyKeys(cmd, keyFiles)
		if err != nil {
			return err
		}
		r := &reporting{verification: verification{cmd: cmd, keys: keys}, reading: &reading, pod: args[0]}
		r.about = report.About{Pod: args[0], Version: version.String(), At: time.Now(), OwnKey: len(keyFiles) == 0, Chosen: chosen(&reading.filter)}
		for _, key := range keys {
			r.about.Keys = append(r.about.Keys, key.Fingerprint())
		}
		return r.write(out)
	}
	return cmd
}

// chosen says which flags chose records.
func chosen(f *query.Filter) (flags []string) {
	for _, c := range f.Containers {
		flags = append(flags, "--container "+c)
	}
	for name, t := range map[string]time.Time{"--since ": f.Since, "--until ": f.Until} {
		if !t.IsZero() {
			flags = append(flags, name+t.UTC().Format(time.RFC3339))
		}
	}
	slices.Sort(flags)
	return flags
}

// reporting is one run of the command.
type reporting struct {
	verification
	reading *auditReading
	pod     string
	page    report.Report
	about   report.About
}

// write makes the page. What is wrong with the evidence is the error in the end.
func (r *reporting) write(out pageFile) error {
	dir, err := auditDir(r.cmd)
	if err != nil {
		return err
	}
	f := r.reading.filter
	f.Pods = []string{r.pod}
	if err := r.one(dir, &f); err != nil {
		return err
	}
	if err := r.verify(dir, &f); err != nil {
		return err
	}
	unread := r.read()
	var passed passedOver
	if errors.As(unread, &passed) {
		r.about.Passed = int(passed)
	} else if unread != nil {
		return unread
	}
	var page bytes.Buffer // which is bounded
	if err := r.page.Write(&page, r.about); err != nil {
		return err
	}
	if err := out.write(page.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(r.cmd.ErrOrStderr(), "metsuke: %s: %d KiB; evidence: %s\n", timeline.Escape(out.name()), (page.Len()+1023)>>10, r.word())
	if unread != nil {
		return unread
	}
	return r.result()
}

// one demands that there is a pod of the name, and one only.
func (r *reporting) one(dir string, f *query.Filter) error {
	streams, err := stream.List(dir)
	if err != nil {
		return err
	}
	namespaces := map[string]bool{}
	for _, s := range streams {
		if f.MatchStream(s) {
			namespace, _, _ := strings.Cut(s.Pod, "_")
			namespaces[namespace] = true
		}
	}
	switch len(namespaces) {
	case 0:
		return fmt.Errorf("pod %s has no such stream here; metsuke audit ls lists them", r.pod)
	case 1:
		return nil
	}
	return fmt.Errorf("there is a pod %s in %d namespaces: name one, as NAMESPACE/%s", r.pod, len(namespaces), r.pod)
}

func (r *reporting) verify(dir string, f *query.Filter) error {
	defer r.progress("verifying")()
	ledger, err := verify.Node(dir, r.keys, f.MatchStream, func(s *verify.Stream) error {
		r.note(s.Verdict())
		r.page.Verified(s)
		return nil
	})
	if err != nil {
		return err
	}
	if ledger.Path != "" || len(ledger.Findings) > 0 {
		r.note(ledger.Verdict())
		r.page.Ledger(ledger)
	}
	return nil
}

func (r *reporting) read() error {
	defer r.progress("reading")()
	o := query.Options{Last: query.All, Borrow: true, Missing: r.page.Missing}
	return r.reading.read(r.cmd, []string{r.pod}, o, nothing, func(e query.Entry) error {
		r.page.Add(e.Record, e.Stream)
		return nil
	})
}

// progress says on a terminal what takes its time, until the function that it returns is called.
func (r *reporting) progress(what string) (done func()) {
	w := r.cmd.ErrOrStderr()
	if !terminal.Is(w) {
		return func() {}
	}
	fmt.Fprintf(w, "%s the streams of %s …", what, timeline.Escape(r.pod))
	return func() { fmt.Fprint(w, "\r\x1b[K") }
}

// word is what verification has come to.
func (r *reporting) word() string {
	switch {
	case r.count[verify.Fault] > 0:
		return verdictWord(verify.Fault)
	case r.count[verify.Unjudged] > 0:
		return verdictWord(verify.Unjudged)
	}
	return verdictWord(verify.Note)
}
