// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/install"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/version"
)

func newNodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Put Metsuke on a node, see how it is, keep it in step with the cluster, and take it away again",
	}
	group(cmd)
	cmd.AddCommand(newNodeInstallCommand(), newNodeStatusCommand(), newNodeUninstallCommand(), newNodeAgentCommand())
	return cmd
}

// nodeFlags say which node is meant, and what cannot be found out about its containerd.
type nodeFlags struct {
	root, containerd, config, address string
	from                              string
	noRestart                         bool
	timeout                           time.Duration
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "/", "the node's root as it is seen from here; in a DaemonSet where the node's / is mounted")
	flags.StringVar(&f.containerd, "containerd", "", "containerd's binary on the node (default: as the unit containerd.service says)")
	flags.StringVar(&f.config, "containerd-config", "", "containerd's main file on the node (default: as the unit says)")
	flags.StringVar(&f.address, "containerd-address", "", "socket on the node at which containerd serves CRI (default: as its configuration says)")
	_ = cmd.MarkFlagDirname("root")
}

func (f *nodeFlags) addSource(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "directory with the binaries to install (default: that of this program)")
	_ = cmd.MarkFlagDirname("from")
}

func (f *nodeFlags) addRestart(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.noRestart, "no-restart", false, "leave the restart of containerd to the caller; exits with 3 while it is to be done")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long containerd may take until it serves after a restart")
}

// open opens the node. The caller closes its tree, which gives back the lock too.
func (f *nodeFlags) open(ctx context.Context, say io.Writer) (*install.Node, error) {
	t, err := tree.Open(f.root)
	if err != nil {
		return nil, err
	}
	n, err := f.find(ctx, t)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	n.Timeout, n.NoRestart = f.timeout, f.noRestart
	n.Say = func(line string) { _, _ = fmt.Fprintln(say, line) }
	return n, nil
}

func (f *nodeFlags) find(ctx context.Context, t *tree.Tree) (*install.Node, error) {
	binary, config := f.containerd, containerd.DefaultConfig
	var unit *containerd.Unit
	if binary == "" {
		var err error
		if unit, err = containerd.FindUnit(ctx, t); errors.Is(err, containerd.ErrNoSystemd) {
			return nil, fmt.Errorf("%w; where containerd runs without systemd, say --containerd and --no-restart", err)
		} else if err != nil {
			return nil, err
		}
		binary, config = unit.Binary, unit.Config
	}
	if f.config != "" {
		config = f.config
	}
	for name, path := range map[string]string{"--containerd": binary, "--containerd-config": config, "--containerd-address": f.address} {
		if path != "" && !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%s: %q is not an absolute path of the node", name, path)
		}
	}
	c := containerd.New(t, binary, config)
	address := f.address
	if address == "" {
		dump, err := c.Dump(ctx)
		if err != nil {
			return nil, err
		}
		if address, err = dump.Address(); err != nil {
			return nil, fmt.Errorf("%w; say --containerd-address", err)
		}
	}
	return &install.Node{Tree: t, Containerd: c, Service: install.NewService(t, address, unit)}, nil
}

// source is where the binaries are, and which version they are.
func (f *nodeFlags) source(ctx context.Context) (install.Source, error) {
	self, err := os.Executable()
	if err != nil {
		return install.Source{}, fmt.Errorf("find our own executable: %w", err)
	}
	if f.from == "" || filepath.Clean(f.from) == filepath.Dir(self) {
		return install.Source{Dir: filepath.Dir(self), Version: version.String()}, nil
	}
	out, err := exec.CommandContext(ctx, filepath.Join(f.from, "metsuke"), "version").Output()
	if err != nil {
		return install.Source{}, fmt.Errorf("ask the binaries in %s for their version: %w", f.from, err)
	}
	words := strings.Fields(string(out)) // as version.go prints them
	if len(words) < 2 || words[0] != "metsuke" {
		return install.Source{}, fmt.Errorf("%s/metsuke version says %q, which is not what metsuke says", f.from, out)
	}
	return install.Source{Dir: f.from, Version: words[1]}, nil
}

// interruptible ends with the first signal to end; what has been begun is undone then.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// pending says what is left to do, if that is what err is about.
func pending(cmd *cobra.Command, err error) error {
	if !errors.Is(err, install.ErrRestartPending) {
		return err
	}
	_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "Everything is written, and containerd does not know it yet. Restart it (running pods are not touched), and run this command once more.")
	return errDiffers
}
