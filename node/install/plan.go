// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
)

// Plan is what an installation would do.
type Plan struct {
	Version     string
	Containerd  containerd.Version
	Handlers    []Handler
	Notes       []string // what is left out, or left alone, and why
	Changes     []Change // of files that people read
	Restart     bool     // containerd has to be restarted
	Why         string   // it has to be
	Interrupted bool     // an earlier change has not ended

	steps  []step
	record *record
}

// Steps are the names of what would be done, in order; none if the node is as it should be.
func (p *Plan) Steps() []string {
	names := make([]string, len(p.steps))
	for i, s := range p.steps {
		names[i] = s.name
	}
	return names
}

// Change is a file as it is and as it would be; empty: there is none.
type Change struct{ Path, Before, After string }

// Plan looks at the node and says what Install would do. It writes nothing but files in /run, which it removes again, and can run beside an
// installer. What stands in the way of an installation is an error.
func (n *Node) Plan(ctx context.Context, source Source) (*Plan, error) {
	sums, err := source.manifest()
	if err != nil {
		return nil, err
	}
	present, err := n.present(source.Version, sums)
	if err != nil {
		return nil, err
	}
	v, err := n.look(ctx)
	if err != nil {
		return nil, err
	}
	p := &Plan{Version: source.Version, Containerd: v.version, record: v.record, Interrupted: v.record.Before != nil}
	p.Handlers, p.Notes = findHandlers(n.Containerd, v.plain, v.bare.DefaultHandler())
	if len(p.Handlers) == 0 {
		return p, fmt.Errorf("this node has no delegate: %s", strings.Join(p.Notes, "; "))
	}
	after, err := n.withHandlers(ctx, v, p.Handlers)
	if err != nil {
		return p, err
	}
	if err := n.planRestart(ctx, p, v, after); err != nil {
		return p, err
	}
	etc, err := p.planEtc(v)
	if err != nil {
		return p, err
	}
	if !present {
		p.add("install version "+source.Version, func(context.Context) error { return n.stage(source, sums) })
	}
	if v.state.Linked != source.Version {
		p.add(fmt.Sprintf("link %s to %s", Current, source.Version), func(context.Context) error { return n.link(source.Version) })
	}
	if err := n.planLinks(p); err != nil {
		return p, err
	}
	p.steps = append(p.steps, n.etcSteps(p.record, etc, v.state.Etc)...)
	if after != v.state.Containerd {
		p.change(n.Containerd.Config, v.state.Containerd.Main, after.Main)
		p.change(after.DropIn, v.state.Containerd.DropInText, after.DropInText)
		p.steps = append(p.steps, n.configSteps(p.record, v.state.Containerd, after, v.bare, p.names())...)
	}
	if p.Restart && !n.NoRestart {
		p.add("restart containerd", func(ctx context.Context) error {
			p.record.Restarted = true
			if err := n.save(p.record); err != nil {
				return err
			}
			return n.restart(ctx, func(h map[string]cri.Handler) string { return missing(p.Handlers, v.written, h) })
		})
	}
	if len(p.steps) > 0 || p.Interrupted || p.Restart {
		first := []step{
			{"keep what is there", func(context.Context) error { return n.begin(p.record, v.state) }},
			{"remove what is unfinished", func(context.Context) error { return n.sweepAll(v) }},
		}
		p.steps = append(first, p.steps...)
	}
	return p, nil
}

func (p *Plan) add(name string, do func(context.Context) error) {
	p.steps = append(p.steps, step{name, do})
}

func (p *Plan) change(file, before, after string) {
	if before != after {
		p.Changes = append(p.Changes, Change{file, before, after})
	}
}

func (p *Plan) names() []string {
	names := make([]string, len(p.Handlers))
	for i, h := range p.Handlers {
		names[i] = h.Name
	}
	return names
}

// withHandlers is containerd's files with the handlers in them. It is an error if containerd would not read exactly these handlers more
// than without them.
func (n *Node) withHandlers(ctx context.Context, v *view, handlers []Handler) (containerd.Files, error) {
	tables := map[string]containerd.Table{}
	for _, h := range handlers {
		tables[h.Name] = h.table
	}
	after, err := n.Containerd.With(v.clean, v.version, tables, v.plain)
	if err != nil {
		return after, err
	}
	dump, err := n.check(ctx, after)
	if err != nil {
		return after, fmt.Errorf("containerd does not take the new configuration: %w", err)
	}
	return after, added(v.bare, dump, tables)
}

// added checks that one dump has these handlers more than the other, and nothing else.
func added(before, after containerd.Dump, tables map[string]containerd.Table) error {
	ours := func(name string) bool { _, ok := tables[name]; return ok }
	if diff := containerd.Differences(before, after, ours); len(diff) > 0 {
		return fmt.Errorf("the handlers would change other parts of containerd's configuration, so nothing is written: %s", strings.Join(diff, ", "))
	}
	have, err := after.Handlers()
	if err != nil {
		return err
	}
	for name, table := range tables {
		for key, want := range table {
			if !same(have[name][key], want) {
				return fmt.Errorf("containerd would not have handler %s as it is meant (%s is %v): does a file that is imported later speak of handlers?", name, key, have[name][key])
			}
		}
	}
	return nil
}

// same compares a value of a dump with one of ours, whose arrays may be of strings.
func same(have, want any) bool {
	if list, ok := want.([]string); ok {
		return slices.Equal(texts(have), list)
	}
	return reflect.DeepEqual(have, want)
}

// planRestart finds whether containerd has to be restarted, and whether that may be done.
func (n *Node) planRestart(ctx context.Context, p *Plan, v *view, after containerd.Files) error {
	what := missing(p.Handlers, v.written, v.inForce)
	switch {
	case v.forceErr != nil && !p.Interrupted && !n.NoRestart:
		return fmt.Errorf("containerd does not say what is in force: %w; is it running?", v.forceErr)
	case v.forceErr != nil:
		p.Restart, p.Why = true, "containerd does not say what is in force"
	case what != "":
		p.Restart, p.Why = true, what
	case after != v.state.Containerd:
		p.Restart, p.Why = true, "its configuration changes"
	case p.Interrupted && v.record.Before.Containerd != after && !v.record.Restarted && !n.NoRestart: // CRI does not tell all
		p.Restart, p.Why = true, "its configuration was changed by an installer that did not end"
	}
	gone := slices.DeleteFunc(slices.Clone(v.written), func(name string) bool { return slices.Contains(p.names(), name) })
	if len(gone) > 0 && v.forceErr == nil {
		return n.refuseUnderPods(ctx, gone)
	}
	return nil
}

func (n *Node) refuseUnderPods(ctx context.Context, gone []string) error {
	pods, err := n.podsUnder(ctx, gone)
	if err == nil && len(pods) > 0 {
		err = fmt.Errorf("the delegates of %s are gone, and pods still run under them: %s; delete these first", strings.Join(gone, ", "), strings.Join(pods, ", "))
	}
	return err
}

// planEtc is the files of ours that are to be in Etc, by name. A file that is somebody else's stays, if Metsuke can read it.
func (p *Plan) planEtc(v *view) (map[string]string, error) {
	files := map[string]string{}
	for _, h := range p.Handlers {
		name := path.Base(h.File)
		if theirs, ok := v.theirs[name]; ok {
			if _, err := config.Parse(h.File, []byte(theirs)); err != nil {
				return nil, fmt.Errorf("%w; the file is not this command's: correct it, or move it away", err)
			}
			p.Notes = append(p.Notes, h.File+" was written or changed by somebody else: left alone")
			continue
		}
		files[name] = h.text
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p.change(path.Join(Etc, name), v.state.Etc[name], files[name])
	}
	for _, name := range slices.Sorted(maps.Keys(v.state.Etc)) {
		if _, ok := files[name]; !ok {
			p.change(path.Join(Etc, name), v.state.Etc[name], "")
		}
	}
	return files, nil
}

// planLinks plans the links in linkDir. They are a convenience: what is in their places stays.
func (n *Node) planLinks(p *Plan) error {
	st, err := n.Tree.Stat(linkDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !st.IsDir() {
		p.Notes = append(p.Notes, "no links in "+linkDir+": there is no such directory")
		return nil //nolint:nilerr // they are a convenience
	}
	for _, name := range links {
		link := path.Join(linkDir, name)
		switch have, err := n.linkTarget(link); {
		case err != nil:
			return err
		case have == "":
			p.add("link "+link, func(context.Context) error { return n.Tree.Symlink(path.Join(Current, name), link) })
		case have != path.Join(Current, name):
			p.Notes = append(p.Notes, fmt.Sprintf("%s is there already, and not by this command: left alone", link))
		}
	}
	return nil
}

// linkTarget is what a link says; "" if nothing is there, and "-" if it is no link.
func (n *Node) linkTarget(link string) (string, error) {
	info, err := n.Tree.Lstat(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink == 0:
		return "-", nil
	}
	return n.Tree.Readlink(link)
}
