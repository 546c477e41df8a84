// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/output"
	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/reader"
	"metsuke.dev/metsuke/internal/terminal"
)

func newTailCommand(c *cluster) *cobra.Command {
	var node string
	q := question.Question{About: question.Log, Lines: 100}
	cmd := &cobra.Command{
		Use:   "tail [-f] POD...",
		Short: "Show the events of pods, in the order of time",
		Long: `Show the newest events of pods, merged by time, from the streams on their nodes.

` + flagvalue.FilterHelp + ` Times are in UTC.

A pod that is gone is found with --node. With -o json lines are the records as they are stored.`,
		Example: `  kubectl metsuke tail -f -n team-a coder
  kubectl metsuke tail coder --since 10m --verdict denied,killed
  kubectl metsuke tail coder --tail all -o json | jq 'select(.class == "net")'`,
		Args: usage(cobra.MinimumNArgs(1)),
	}
	flags := cmd.Flags()
	addNodeFlag(cmd, &node)
	flags.BoolVarP(&q.Follow, "follow", "f", false, "go on with new events, until interrupted")
	flags.Var(&flagvalue.Lines{N: &q.Lines}, "tail", fmt.Sprintf("show only the last so many events, %d at most, or all (default 100, or all with --since)", question.MaxLines))
	flagvalue.AddFilter(cmd, &q.Chosen, nil)
	form := addOutputFlag(cmd, output.Forms(output.Timeline)...)
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		q.Since = q.Chosen.Since
		if !q.Since.IsZero() && !flags.Changed("tail") {
			q.Lines = query.All
		}
		if q.Lines > question.MaxLines {
			return cmd.FlagErrorFunc()(cmd, fmt.Errorf("--tail: must be all, or a count of %d at most", question.MaxLines))
		}
		client, namespace, err := c.connect()
		if err != nil {
			return err
		}
		var questions []*question.Question
		for _, name := range names {
			one := q
			one.Namespace, one.Pod, one.Node = namespace, name, node
			if node == "" {
				if one.Node, err = client.NodeOf(cmd.Context(), namespace, name); err != nil {
					return err
				}
			}
			questions = append(questions, &one)
		}
		printer, err := output.New(form.Value, cmd.OutOrStdout(), terminal.Color(cmd.OutOrStdout()))
		if err != nil {
			return err
		}
		return tail(cmd, client, questions, printer)
	}
	return cmd
}

// tail prints the streams of pods.
func tail(cmd *cobra.Command, client *reader.Client, questions []*question.Question, p *output.Printer) error {
	ctx, stop := context.WithCancel(cmd.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var sources []*source
	for _, q := range questions {
		s := &source{q: q, out: make(chan entry)}
		sources = append(sources, s)
		running.Go(func() {
			defer close(s.out)
			s.err = s.read(ctx, client)
		})
	}
	var err error
	if questions[0].Follow {
		err = arriving(sources, p)
	} else {
		err = merged(sources, p)
	}
	err = errors.Join(err, p.Flush())
	stop()
	running.Wait()
	for _, s := range sources {
		if s.err != nil && cmd.Context().Err() == nil { // interrupted: the way to end it
			err = errors.Join(err, fmt.Errorf("pod %s on node %s: %w", s.q.Pod, s.q.Node, s.err))
		}
	}
	return err
}

// entry is one record, as it came.
type entry struct {
	record *record.Record
	line   []byte
}

// source is the stream of one pod.
type source struct {
	q   *question.Question
	out chan entry // in its order; closed at the end
	err error      // after the end
}

// read reads what the node answers, which may be anything.
func (s *source) read(ctx context.Context, client *reader.Client) error {
	body, err := client.Ask(ctx, s.q)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	var passed error
	in := bufio.NewScanner(body)
	in.Buffer(nil, audit.MaxRecord+1)
	for in.Scan() {
		var problem question.Problem
		r, err := record.Parse(in.Bytes())
		switch {
		case err != nil && json.Unmarshal(in.Bytes(), &problem) == nil && problem.Problem != "":
			passed = errors.New(problem.Problem)
			continue
		case err != nil:
			return fmt.Errorf("a line is no record: %w", err)
		case r.Identity.Namespace != s.q.Namespace || r.Identity.Pod != s.q.Pod:
			return errOther
		case !harmless(in.Bytes()):
			return errors.New("a record has bytes that no Metsuke writes")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s.out <- entry{r, bytes.Clone(in.Bytes())}:
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("the answer was cut off: %w", err)
	}
	return passed
}

// harmless tells whether a line can be printed as it is.
func harmless(line []byte) bool {
	for _, r := range string(line) {
		if !audit.Printable(r) {
			return false
		}
	}
	return true
}

// merged prints records by their time.
func merged(sources []*source, p *output.Printer) error {
	heads := make([]*entry, len(sources))
	next := func(i int) {
		heads[i] = nil
		if e, ok := <-sources[i].out; ok {
			heads[i] = &e
		}
	}
	for i := range sources {
		next(i)
	}
	for {
		first := -1
		for i, h := range heads {
			if h != nil && (first < 0 || h.record.Event.Time.Before(heads[first].record.Event.Time)) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		if err := p.Print(heads[first].record, heads[first].line); err != nil {
			return err
		}
		next(first)
	}
}

// arriving prints records as they come.
func arriving(sources []*source, p *output.Printer) error {
	all := make(chan entry)
	var running sync.WaitGroup
	for _, s := range sources {
		running.Go(func() {
			for e := range s.out {
				all <- e
			}
		})
	}
	go func() {
		running.Wait()
		close(all)
	}()
	var err error
	for e := range all {
		if err == nil {
			if err = p.Print(e.record, e.line); err == nil {
				err = p.Flush()
			}
		}
	}
	return err
}
