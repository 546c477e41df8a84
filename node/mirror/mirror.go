// SPDX-License-Identifier: Apache-2.0

// Package mirror keeps one file of a node's profile directory equal to what is in force in the cluster.
//
// Shims read the directory anew for each container, so the file changes by one rename, and only after the whole directory was
// parsed as they would parse it.
package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
)

// FileName is the name of the file in the profile directory.
const FileName = "cluster.yaml"

const header = "# Written by metsuke node agent from the objects of the cluster. What is changed here is lost.\n"

// A Mirror writes into one directory. Its methods may be called by one goroutine at a time.
type Mirror struct {
	Tree *tree.Tree
	Dir  string // the profile directory, a path of the node
	// Check is asked about the whole set, the node's own files included, before it comes into force; nil accepts all.
	Check func(*profile.Set) error
}

// Put writes documents, in this order, in the place of those that are there, and reports whether the file changed. It is durable
// when Put returns. If the node's set would not be valid with them, or Check refuses it, the file stays as it is; the error wraps
// the faults of package profile then.
func (m *Mirror) Put(documents []profile.File) (changed bool, err error) {
	data, err := render(documents)
	if err != nil {
		return false, err
	}
	if err := m.Tree.Mkdir(m.Dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("profile directory: %w", err)
	}
	if err := m.check(data); err != nil {
		return false, err
	}
	name := path.Join(m.Dir, FileName)
	if there, err := m.Tree.ReadFile(name); err == nil && bytes.Equal(there, data) {
		return false, nil
	}
	if err := m.Tree.WriteFile(name, data, 0o644); err != nil {
		return false, err
	}
	return true, nil
}

// Remove removes what Put has written, and the directory if it is empty then. A file of that name which somebody else wrote stays.
func (m *Mirror) Remove() error {
	name := path.Join(m.Dir, FileName)
	data, err := m.Tree.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !bytes.HasPrefix(data, []byte(header)) {
		return err
	}
	if err := m.Tree.Remove(name); err != nil {
		return err
	}
	if rest, err := m.Tree.ReadDir(m.Dir); err != nil || len(rest) > 0 {
		return err
	}
	return m.Tree.Remove(m.Dir)
}

// check parses the directory as it would be.
func (m *Mirror) check(data []byte) error {
	files, err := profile.Files(m.Tree.FS(m.Dir), m.Dir)
	if err != nil {
		return err
	}
	name := path.Join(m.Dir, FileName)
	files = slices.DeleteFunc(files, func(f profile.File) bool { return f.Name == name })
	set, err := profile.Parse(append(files, profile.File{Name: name, Data: data}))
	if err != nil {
		return err
	}
	if m.Check != nil {
		return m.Check(set)
	}
	return nil
}

// render writes documents one after the other, in the form that people write.
func render(documents []profile.File) ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteString(header)
	for _, d := range documents {
		if d.Err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, d.Err)
		}
		var node yaml.Node
		if err := yaml.Unmarshal(d.Data, &node); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		block(&node)
		text, err := yaml.Marshal(&node)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		fmt.Fprintf(&buf, "---\n%s", text)
	}
	return buf.Bytes(), nil
}

// block gives JSON the block style. Scalars keep their quotes, and so their types.
func block(n *yaml.Node) {
	if n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode {
		n.Style &^= yaml.FlowStyle
	}
	for _, c := range n.Content {
		block(c)
	}
}
