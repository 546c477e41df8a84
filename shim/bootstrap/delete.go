// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/grpc/status"

	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

// Deletion is one delete action. containerd runs delete for a container when its connection to the shim has ended: in
// order, after Task.Delete and Shutdown; after a failed Create; and when the shim or its connection died.
type Deletion struct {
	Namespace string
	ID        string // of the container
	Bundle    string
	// Record is the container's, or nil: it got as far as start, or its bundle lost it.
	Record *Record
	// ShimAlive says that the pod's daemon runs, so that this container alone is deleted. It knows what it lost.
	ShimAlive bool
	// Lost says that the container was not deleted in order and that its daemon is dead: whatever the container did
	// since then has not been seen.
	Lost bool
	// Settings are those of the configuration file; the zero value when it could not be read.
	Settings Settings
}

// delete ends what a dead daemon left, runs the delegate's delete and returns its answer. Nothing that it needs is
// taken for granted: half of it may be gone, of an older or newer version, or from before a reboot.
func (p Program) delete(ctx context.Context, inv *invocation, warnings io.Writer) ([]byte, error) {
	warn := func(err error) {
		if err != nil {
			fmt.Fprintf(warnings, "%s\n", err)
		}
	}
	d := &Deletion{Namespace: inv.namespace, ID: inv.id, Bundle: inv.bundle}
	record, err := ReadRecord(inv.bundle)
	if err == nil {
		d.Record = record
	} else if !errors.Is(err, os.ErrNotExist) {
		warn(err)
	}
	config := ""
	if record != nil {
		config = record.Config
	}
	settings, configErr := p.Configure(config)
	if configErr == nil {
		d.Settings = settings
	}
	st := findState(inv, record, settings)
	lock, alive := dead(ctx, st)
	if lock != nil {
		defer lock.Close()
	}
	d.ShimAlive = alive
	d.Lost = !alive && record != nil && !record.Closed
	if !alive {
		warn(st.Delegate.End(ctx))
	}
	if p.Delete != nil {
		warn(p.Delete(ctx, d))
	}
	out, err := p.deleteByDelegate(ctx, inv, st, settings, configErr)
	if p.Deleted != nil {
		warn(p.Deleted(ctx, d))
	}
	if !alive {
		warn(errors.Join(removeSocket(st.Address), removePodDir(st.Dir)))
	}
	return out, err
}

func (p Program) deleteByDelegate(
	ctx context.Context, inv *invocation, st *State, settings Settings, configErr error,
) ([]byte, error) {
	binary := st.Delegate.Binary
	if _, err := os.Stat(binary); err != nil {
		// Never recorded, or moved by an upgrade.
		if configErr != nil {
			return nil, configErr
		}
		if binary, err = settings.Delegate.Find(); err != nil {
			return nil, err
		}
	}
	params := delegate.Params{
		Namespace: inv.namespace, ID: inv.id, Bundle: inv.bundle, Address: inv.address,
		PublishBinary: inv.publishBinary, Debug: inv.debug,
	}
	if st.Containerd != "" {
		params.Address = st.Containerd // what it was started with; containerd's may have changed
	}
	return delegate.Delete(ctx, binary, params)
}

// findState finds what is known of the container's pod: by the container's record; by the name that its directory
// would have; by the address that containerd keeps in the bundle. It returns an empty State when there is nothing.
func findState(inv *invocation, record *Record, settings Settings) *State {
	if record != nil {
		if st, err := ReadState(record.Dir); err == nil && st.Address == record.Address {
			return st
		}
		st := record.State
		return &st
	}
	if settings.StateDir != "" {
		dir := podDir(settings.StateDir, inv)
		if st, err := ReadState(dir); err == nil {
			return st
		}
		if _, err := os.Stat(dir); err == nil {
			return &State{Dir: dir}
		}
		if address := bundleAddress(inv.bundle); address != "" {
			return stateByAddress(settings.StateDir, address)
		}
	}
	return &State{}
}

// bundleAddress is the address of our daemon as containerd 2 (bootstrap.json) or we (address) wrote it.
func bundleAddress(bundle string) string {
	var b struct {
		Address string `json:"address"`
	}
	if err := readJSON(filepath.Join(bundle, "bootstrap.json"), &b); err == nil && b.Address != "" {
		return b.Address
	}
	data, err := os.ReadFile(filepath.Join(bundle, "address"))
	if err != nil || len(data) > 4096 {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// stateByAddress searches the pods' directories. It is the last resort: a container whose record is lost.
func stateByAddress(root, address string) *State {
	dirs, _ := os.ReadDir(root)
	for _, e := range dirs {
		if st, err := ReadState(filepath.Join(root, e.Name())); err == nil && st.Address == address {
			return st
		}
	}
	return &State{}
}

// answerPatience is how long delete waits for a word from a daemon that holds its lock.
const answerPatience = time.Second

// dead returns the lock of a pod whose daemon is dead, or nil if nothing is left of the pod, and whether the daemon
// lives. A daemon whose delegate is dead is about to end, and is waited for; so is one that was killed, whose connections
// the kernel may close before its lock.
func dead(ctx context.Context, st *State) (lock *os.File, alive bool) {
	if st.Dir == "" {
		return nil, false
	}
	lock, err := inspect(st.Dir)
	if errors.Is(err, errHeld) && (!st.Delegate.Process.Alive() || !answers(ctx, st)) {
		lock, err = released(ctx, st.Dir, dyingPatience)
	}
	return lock, errors.Is(err, errHeld)
}

// answers says that a pod's daemon speaks, or at least does not hang up.
func answers(ctx context.Context, st *State) bool {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	err := proxy.Invoke(ctx, proxy.DialUnix(st.Address), st.TaskService(), "Connect", &taskapi.ConnectRequest{ID: st.ID}, &taskapi.ConnectResponse{})
	_, refused := status.FromError(err)
	return err == nil || refused || ctx.Err() != nil
}
