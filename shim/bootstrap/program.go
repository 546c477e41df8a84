// SPDX-License-Identifier: Apache-2.0

// Package bootstrap is the process side of the shim: what containerd runs (start, delete, -info, -v), the daemon that
// start leaves behind, and what both keep on disk. It speaks containerd's start protocols of 1.7 to 2.2 and of 2.3
// and later (core/runtime/v2 and pkg/shim of containerd 2).
//
// Start runs the delegate's own start first. If that leads to a new delegate, start leaves a daemon of ours for it: one
// for each delegate, which is one for each pod. If the delegate's grouping leads to one that runs already, the daemon
// of that pod serves the container too, at an address that is derived from the delegate's.
//
// Each pod has a directory, <state>/<key>, that holds shim.json, the socket for the delegate's events and a lock that
// the daemon holds for its life: whoever gets the lock knows that the daemon is dead. Each container's bundle holds
// metsuke.json beside config.json, so that delete finds all that is left from the bundle alone.
package bootstrap

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

// Settings are what the configuration file says about starting.
type Settings struct {
	Delegate delegate.Config
	// StateDir holds the pods' directories, on a file system that a reboot empties. It must be short: the socket for
	// events is at <StateDir>/<32 characters>/events.sock, and a socket's path has at most 107 bytes.
	StateDir string
}

// Program is the owner of the process: it has the configuration and the service, and bootstrap runs both.
type Program struct {
	Version string
	// Configure reads the configuration file; an empty path is the default one. It is called in each process anew.
	Configure func(path string) (Settings, error)
	// Serve makes the service of a pod, in the daemon, before anything is served. ctx ends with the daemon.
	Serve func(ctx context.Context, pod *Pod) (*Service, error)
	// Delete is told of each delete action, in the process of delete: when the daemon was found dead, after the
	// delegate was ended and before its delete action runs. containerd gives a delete five seconds in all. Its
	// error is printed, and delete goes on. nil: nothing to do.
	Delete func(ctx context.Context, d *Deletion) error
	// Deleted is told likewise, after the delegate's delete action and before the pod's directory is removed. nil:
	// nothing to do.
	Deleted func(ctx context.Context, d *Deletion) error
}

// Service is what the owner does in the daemon. Each function may be nil.
type Service struct {
	// Intercept returns the handler of a call of containerd's, or nil to pass it on (proxy.Config).
	Intercept func(*proxy.Call) proxy.Handler
	// Event sees each event of the delegate's and says whether containerd does (events.Config).
	Event func(topic string, event *anypb.Any) (forward bool)
	// Close is called when the daemon ends, when no call and no event can come any more. It is killed after five seconds.
	Close func(ctx context.Context, why End) error
}

// End is why a daemon ends.
type End string

const (
	// EndDelegate says that the delegate has ended, by Shutdown or by itself.
	EndDelegate End = "delegate"
	// EndSignal says that the daemon got SIGTERM or SIGINT. The delegate may still run; containerd's delete will end it.
	EndSignal End = "signal"
)

// Main runs what the command line asks for, and returns the exit code.
func (p Program) Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	name := filepath.Base(args[0])
	inv, err := parseArgs(args[1:], os.Getenv)
	if err == nil {
		err = p.run(inv, name, stdin, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s", name, err)
		return 1
	}
	return 0
}

func (p Program) run(inv *invocation, name string, stdin io.Reader, stdout, stderr io.Writer) error {
	ctx := context.Background()
	var out []byte
	var err error
	switch {
	case inv.version:
		_, err = fmt.Fprintf(stdout, "%s:\n  Version:  %s\n  Go version: %s\n", name, p.Version, runtime.Version())
		return err
	case inv.info:
		out, err = p.info(ctx, stdin)
	case inv.namespace == "":
		return fmt.Errorf("shim namespace cannot be empty")
	case inv.id == "":
		return fmt.Errorf("-id is missing")
	case inv.action == "start":
		if err := inv.readStdin(stdin); err != nil {
			return err
		}
		out, err = p.start(ctx, inv)
	case inv.action == "delete":
		out, err = p.delete(ctx, inv, stderr)
	case inv.action == "serve":
		return p.serve(ctx, inv)
	default:
		return fmt.Errorf("unknown action %q: containerd runs start and delete", inv.action)
	}
	if err != nil {
		return err
	}
	if _, err := stdout.Write(out); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// info answers -info with what the delegate says of itself, under its own options.
func (p Program) info(ctx context.Context, stdin io.Reader) ([]byte, error) {
	data, err := readAll(stdin)
	if err != nil {
		return nil, err
	}
	any, err := parseOptions(data)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(any.GetTypeUrl(), "containerd.runc.v1.Options") {
		// containerd's CRI asks so for a container in a user namespace, whatever the runtime: of the default configuration.
		any = nil
	}
	path, err := delegate.UnwrapOptions(any)
	if err != nil {
		return nil, err
	}
	settings, err := p.Configure(path)
	if err != nil {
		return nil, err
	}
	return delegate.Info(ctx, settings.Delegate)
}
