// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"metsuke.dev/metsuke/node/containerd"
)

// etcSteps bring the files of ours in Etc from what is there to what is wanted.
func (n *Node) etcSteps(r *record, want, have map[string]string) (steps []step) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] == want[name] {
			continue
		}
		file := path.Join(Etc, name)
		steps = append(steps, step{"write " + file, func(context.Context) error {
			if err := n.mkdir(r, Etc, true); err != nil {
				return err
			}
			return n.Tree.WriteFile(file, []byte(want[name]), 0o644)
		}})
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[name]; !ok {
			file := path.Join(Etc, name)
			steps = append(steps, step{"remove " + file, func(context.Context) error { return n.removeSealed(file) }})
		}
	}
	return steps
}

// configSteps bring containerd's files from what is there to what is wanted, and then let containerd read them once more, before anything
// rests on it.
func (n *Node) configSteps(r *record, have, want containerd.Files, bare containerd.Dump, ours []string) []step {
	steps := n.fileSteps(r, have, want)
	return append(steps, step{"let containerd read its configuration", func(ctx context.Context) error {
		dump, err := n.Containerd.Dump(ctx)
		if err != nil {
			return err
		}
		if diff := containerd.Differences(bare, dump, func(name string) bool { return slices.Contains(ours, name) }); len(diff) > 0 {
			return fmt.Errorf("it has other values than before in %s", strings.Join(diff, ", "))
		}
		handlers, err := dump.Handlers()
		for _, name := range ours {
			if _, ok := handlers[name]; !ok && err == nil {
				err = fmt.Errorf("it does not have handler %s", name)
			}
		}
		return err
	}})
}

// fileSteps bring containerd's files from what is there to what is wanted. A drop-in is there before it is imported, and as long as it is.
func (n *Node) fileSteps(r *record, have, want containerd.Files) (steps []step) {
	if want.DropInText != "" && (want.DropInText != have.DropInText || want.DropIn != have.DropIn) {
		steps = append(steps, step{"write " + want.DropIn, func(context.Context) error {
			if err := n.mkdir(r, path.Dir(want.DropIn), true); err != nil {
				return err
			}
			if r.DropIn != want.DropIn {
				old := r.DropIn
				r.DropIn = want.DropIn
				if err := errors.Join(n.save(r), n.removeSealed(old)); err != nil {
					return err
				}
			}
			return n.Tree.WriteFile(want.DropIn, []byte(want.DropInText), 0o644)
		}})
	}
	if want.Main != have.Main || want.MainExists != have.MainExists {
		steps = append(steps, step{"change " + n.Containerd.Config, func(context.Context) error { return n.writeMain(r, have, want) }})
	}
	if want.DropInText == "" && have.DropInText != "" {
		steps = append(steps, step{"remove " + have.DropIn, func(context.Context) error { return n.removeSealed(have.DropIn) }})
	}
	return steps
}

// writeMain changes containerd's main file, unless somebody else has done so since it was read.
func (n *Node) writeMain(r *record, have, want containerd.Files) error {
	file, err := n.Tree.Follow(n.Containerd.Config)
	if err != nil {
		return err
	}
	now, err := n.Tree.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(now) != have.Main || (err == nil) != have.MainExists {
		return errors.New("somebody else has changed it meanwhile; run this again")
	}
	if !want.MainExists {
		return n.Tree.Remove(file)
	}
	if err := n.mkdir(r, path.Dir(file), true); err != nil {
		return err
	}
	return n.Tree.WriteFile(file, []byte(want.Main), 0o644)
}

// removeSealed removes a file if it is ours.
func (n *Node) removeSealed(file string) error {
	if file == "" {
		return nil
	}
	data, err := n.Tree.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !containerd.Sealed(string(data)) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.Tree.Remove(file)
}

// restore puts back what there was before a change.
func (n *Node) restore(r *record) error {
	if r.Before == nil {
		return nil
	}
	have, err := n.Containerd.Read()
	if err != nil {
		return err
	}
	want, err := n.Containerd.Restore(have, r.Before.Containerd)
	if err != nil {
		return err
	}
	etc, _, err := n.etc()
	if err != nil {
		return err
	}
	steps := append(n.fileSteps(r, have, want), n.etcSteps(r, r.Before.Etc, etc)...)
	for _, s := range steps {
		if err := s.do(context.Background()); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := n.link(r.Before.Linked); err != nil {
		return err
	}
	if r.Before.Linked == "" {
		if err := n.unlink(); err != nil {
			return err
		}
	}
	return n.prune(r, false)
}

// unlink removes our links in linkDir.
func (n *Node) unlink() error {
	for _, name := range links {
		link := path.Join(linkDir, name)
		have, err := n.linkTarget(link)
		if err == nil && have == path.Join(Current, name) {
			err = n.Tree.Remove(link)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
