// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"metsuke.dev/metsuke/node/containerd"
)

const (
	recordFile    = stateDir + "/record.json"
	recordVersion = 1
)

// A record is what cannot be seen on the node: what was there before a change that is under way, and which directories are ours.
type record struct {
	Version int `json:"version"`
	// Directories that an installer made, in the order of their making.
	Directories []string `json:"directories,omitempty"`
	// DropIn is where the last drop-in was written.
	DropIn string `json:"dropIn,omitempty"`
	// Previous is the version that was linked before the one that is.
	Previous string `json:"previous,omitempty"`
	// Before is there while a change is under way; Restarted says that containerd may have seen the new configuration.
	Before    *state `json:"before,omitempty"`
	Restarted bool   `json:"restarted,omitempty"`
}

// A state is what of ours can be on a node, beside the versions.
type state struct {
	Linked     string            `json:"linked,omitempty"` // version that Current leads to
	Containerd containerd.Files  `json:"containerd"`
	Etc        map[string]string `json:"etc,omitempty"` // files of ours in Etc, by name
}

func (n *Node) loadRecord() (*record, error) {
	data, err := n.Tree.ReadFile(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &record{Version: recordVersion}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", recordFile, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("%s has version %d, and this metsuke reads %d: use the metsuke that wrote it", recordFile, r.Version, recordVersion)
	}
	return r, nil
}

func (n *Node) save(r *record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return n.Tree.WriteFile(recordFile, append(data, '\n'), 0o600)
}

// begin puts on the disk what is there now, unless an earlier change is still under way: then that one's is what to go back to.
func (n *Node) begin(r *record, now state) error {
	for _, dir := range []string{path.Dir(Home), Home, stateDir} { // before there can be a record
		if err := n.mkdir(r, dir, false); err != nil {
			return err
		}
	}
	if r.Before == nil {
		r.Before, r.Restarted = &now, false
	}
	return n.save(r)
}

// commit ends a change: there is nothing to go back to any more.
func (n *Node) commit(r *record) error {
	if r.Before == nil {
		return nil
	}
	linked, err := n.linked()
	if err != nil {
		return err
	}
	if was := r.Before.Linked; was != "" && was != linked {
		r.Previous = was
	}
	r.Before, r.Restarted = nil, false
	return n.save(r)
}

// mkdir makes a directory and those that it is in, and remembers which were not there; with save, before they are.
func (n *Node) mkdir(r *record, dir string, save bool) error {
	if _, err := n.Tree.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := path.Dir(dir); parent != "/" {
		if err := n.mkdir(r, parent, save); err != nil {
			return err
		}
	}
	if !slices.Contains(r.Directories, dir) {
		r.Directories = append(r.Directories, dir)
		if save {
			if err := n.save(r); err != nil {
				return err
			}
		}
	}
	return n.Tree.Mkdir(dir, 0o755)
}

// leave removes what the installer has for itself, if there is no version any more.
func (n *Node) leave(r *record) error {
	found, _, err := n.versions()
	if err != nil || len(found) > 0 {
		return err
	}
	return n.prune(r, true)
}

// prune removes the directories that are ours and empty, last made first; with home, also our own, and the record with them.
func (n *Node) prune(r *record, home bool) error {
	own := []string{path.Dir(Home), Home, stateDir}
	for _, dir := range slices.Backward(r.Directories) {
		if slices.Contains(own, dir) {
			continue
		}
		if err := n.removeEmpty(dir); err != nil {
			return err
		}
	}
	if !home {
		return nil
	}
	if err := errors.Join(n.Tree.RemoveAll(stateDir), n.removeEmpty(Home)); err != nil {
		return err
	}
	if slices.Contains(r.Directories, path.Dir(Home)) {
		return n.removeEmpty(path.Dir(Home))
	}
	return nil
}

func (n *Node) removeEmpty(dir string) error {
	entries, err := n.Tree.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return n.Tree.Remove(dir)
}
