// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/shim/delegate"
)

const (
	stateVersion = 1
	stateFile    = "shim.json"    // in the pod's directory
	recordFile   = "metsuke.json" // in a container's bundle
	eventsSocket = "events.sock"
	lockFile     = "lock"
	maxState     = 1 << 20 // of a state file, in bytes
	keyBytes     = 16      // of a pod's key, whose hex digits name its directory
)

// State is what is kept of a pod. Fields are added and never change their meaning, so that the delete of another
// version can read it; unknown ones are ignored.
type State struct {
	Version       int               `json:"version"` // of this form
	Namespace     string            `json:"namespace"`
	ID            string            `json:"id"` // of the container whose start made the pod: the sandbox
	Bundle        string            `json:"bundle"`
	Dir           string            `json:"dir"`     // the pod's directory
	Address       string            `json:"address"` // ours: unix:///path
	Containerd    string            `json:"containerd"`
	TTRPC         string            `json:"ttrpc"` // containerd's socket for events
	PublishBinary string            `json:"publishBinary"`
	Debug         bool              `json:"debug,omitempty"`
	Config        string            `json:"config,omitempty"` // path of the configuration file; empty: the default
	TaskV2        bool              `json:"taskV2,omitempty"` // containerd was told version 2, the delegate speaks 3
	Delegate      delegate.Instance `json:"delegate"`
}

// Record is what is kept of a container, beside its config.json.
type Record struct {
	State
	Container string `json:"container"` // the container's id
	// Closed says that the container was deleted in order: a delete action that finds it has nothing lost to report.
	Closed bool `json:"closed,omitempty"`
	// Owner is the owner's own, as it was given to Pod.Record.
	Owner json.RawMessage `json:"owner,omitempty"`
}

// podDir is the directory of the pod that a start of this container would make.
func podDir(root string, inv *invocation) string {
	sum := sha256.Sum256([]byte(inv.address + "\x00" + inv.namespace + "\x00" + inv.id))
	return filepath.Join(root, hex.EncodeToString(sum[:keyBytes]))
}

// ownAddress is where we serve what stands before a delegate: beside the delegate's socket, under a name that is
// derived from the delegate's, so that whoever is led to the delegate finds us.
func ownAddress(delegateAddress string) (string, error) {
	path, err := delegate.SocketPath(delegateAddress)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte("metsuke\x00" + delegateAddress))
	address := "unix://" + filepath.Join(filepath.Dir(path), hex.EncodeToString(sum[:]))
	if _, err := delegate.SocketPath(address); err != nil {
		return "", fmt.Errorf("our own socket: %w", err)
	}
	return address, nil
}

// PodDirs returns the pods' directories under a state directory, sorted: also those of pods whose daemon is dead, and of
// those that are being started or removed. A root that does not exist is an error that wraps os.ErrNotExist.
func PodDirs(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if key, err := hex.DecodeString(e.Name()); err == nil && len(key) == keyBytes && e.IsDir() {
			dirs = append(dirs, filepath.Join(root, e.Name()))
		}
	}
	return dirs, nil
}

// ReadState reads what is kept of the pod that has the directory. The error wraps os.ErrNotExist when there is nothing: a
// start is under way, or the pod is gone.
func ReadState(dir string) (*State, error) {
	s := &State{}
	if err := readJSON(filepath.Join(dir, stateFile), s); err != nil {
		return nil, err
	}
	return s, nil
}

// ReadRecord reads the record in a bundle. The error wraps os.ErrNotExist when there is none.
func ReadRecord(bundle string) (*Record, error) {
	r := &Record{}
	if err := readJSON(filepath.Join(bundle, recordFile), r); err != nil {
		return nil, err
	}
	return r, nil
}

func writeRecord(bundle string, r *Record) error {
	return writeJSON(filepath.Join(bundle, recordFile), r)
}

func readJSON(path string, v any) error {
	// Nothing else than a file of ours is to be expected, but what follows a name into a bundle is cheap to refuse.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return fmt.Errorf("state %s: %w", path, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("state %s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("state %s: %w", path, err)
	}
	return writeFile(path, buf.Bytes(), 0o600)
}

// writeFile replaces path as a whole.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone by then when all went well
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
