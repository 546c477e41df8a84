// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"context"
	"io/fs"

	"metsuke.dev/metsuke/integration/stand"
)

// Handler is the runtime handler that the installer makes on a node, and ConfigPath is its configuration.
const (
	Handler    = "metsuke-runc"
	ConfigPath = "/etc/metsuke/" + Handler + ".toml"
)

// downloads is where Install puts the binaries, for the installer to take them from.
const downloads = "/root/metsuke"

// Install puts Metsuke onto the node with its own installer, which restarts containerd.
func (n *Node) Install(ctx context.Context) error {
	for name, mode := range map[string]fs.FileMode{"containerd-shim-metsuke-v2": 0o755, "metsuke-guest": 0o711, "metsuke": 0o755} {
		if err := n.Copy(downloads+"/"+name, mode, stand.Metsuke(name)); err != nil {
			return err
		}
	}
	_, err := n.Exec(ctx, downloads+"/metsuke", "node", "install")
	return err
}
