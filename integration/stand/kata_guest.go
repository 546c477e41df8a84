// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"metsuke.dev/metsuke/integration/initrd"
)

// guestModules are what a guest needs of Debian's kernel, which builds nearly everything as a module: its devices, the
// shared file system, overlays for tests, and what CRI's conformance suite makes a bridge with.
var guestModules = []string{"virtio_pci", "virtio_console", "virtio_net", "virtiofs", "overlay", "bridge"}

// writeGuest writes the initial file system of Kata's guests, which is all that they have: the agent as /init, /bin/runc,
// which the stand-in agent runs containers with, and /modules, with a file "order" that names its files in the order in
// which they are to be loaded.
func writeGuest(image string) error {
	runc, err := Tool("runcstatic", "runc")
	if err != nil {
		return err
	}
	kernel, err := Tool("kernel", "modules")
	if err != nil {
		return err
	}
	releases, err := filepath.Glob(filepath.Join(kernel, "*"))
	if err != nil || len(releases) != 1 {
		return fmt.Errorf("%s has not one kernel's modules: %v, %w", kernel, releases, err)
	}
	modules, err := initrd.Modules(releases[0], guestModules...)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(image, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := initrd.NewWriter(file)
	for _, dir := range []string{"dev", "proc", "run", "sys", "tmp"} {
		w.Dir(dir)
	}
	w.Copy("init", os.Getenv(kataAgentVariable), 0o755)
	w.Copy("bin/runc", runc, 0o755)
	var order strings.Builder
	for _, module := range modules {
		name := path.Base(module)
		w.Copy("modules/"+name, filepath.Join(releases[0], module), 0o644)
		fmt.Fprintln(&order, name)
	}
	w.File("modules/order", []byte(order.String()), 0o644)
	return errors.Join(w.Close(), file.Close())
}
