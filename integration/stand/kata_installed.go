// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// kataFiles are what a handler needs to know of Kata.
type kataFiles struct{ shim, config string }

// kataShim is the name of the binaries of both of Kata's runtimes.
const kataShim = "containerd-shim-kata-v2"

// The layouts of an installation: of kata-deploy, of its releases before drop-ins, of the archives, of packages of distributions.
// Directories of binaries and of configurations are of one runtime each, the Go one first; names of configurations are in the
// order in which they are looked for. docs/node-guide.md has the same table.
var kataLayouts = []struct{ bin, configs, shim string }{
	{"bin", "share/defaults/kata-containers", "qemu"},
	{"runtime-rs/bin", "share/defaults/kata-containers/runtime-rs", "qemu-runtime-rs"},
}

// findKata finds the parts of an installation. config, if not empty, is the configuration to take instead of that of the first
// runtime that is there; the shim is then that of its runtime.
func findKata(dir, config string) (kataFiles, error) {
	if !filepath.IsAbs(dir) || config != "" && !filepath.IsAbs(config) {
		return kataFiles{}, fmt.Errorf("%s=%s, %s=%s: both must be absolute paths", kataVariable, dir, kataConfigVariable, config)
	}
	var missing []string
	exists := func(path string) bool {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			missing = append(missing, path)
			return false
		}
		return true
	}
	for _, layout := range kataLayouts {
		shim := filepath.Join(dir, layout.bin, kataShim)
		configs := []string{
			filepath.Join(dir, layout.configs, "runtimes", layout.shim, "configuration-"+layout.shim+".toml"),
			filepath.Join(dir, layout.configs, "configuration-"+layout.shim+".toml"),
			filepath.Join(dir, layout.configs, "configuration.toml"),
		}
		if config != "" {
			if strings.Contains(config, "/runtime-rs/") != strings.HasPrefix(layout.bin, "runtime-rs/") {
				continue
			}
			configs = []string{config}
		}
		if !exists(shim) {
			continue
		}
		if i := slices.IndexFunc(configs, exists); i >= 0 {
			return kataFiles{shim, configs[i]}, nil
		}
	}
	return kataFiles{}, fmt.Errorf("%s=%s: no Kata is installed there; not found: %s", kataVariable, dir, strings.Join(missing, ", "))
}

// version is what the shim says of itself.
func (k kataFiles) version() string {
	out, err := exec.Command(k.shim, "--version").Output()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return k.shim
	}
	return line
}

// vmms are the programs that run guests. (Dragonball is a part of its shim.)
var vmms = []string{"qemu-system-", "cloud-hypervisor", "firecracker", "stratovirt"}

// Machines are the processes that run the pod's guest.
func (p *Pod) Machines() []int {
	var found []int
	for _, vmm := range vmms {
		found = append(found, Processes(vmm, p.ID)...)
	}
	return found
}
