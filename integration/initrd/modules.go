// SPDX-License-Identifier: Apache-2.0

package initrd

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Modules returns the files, below dir, that have to be loaded for the named modules, each after those that it needs. dir
// is a /lib/modules/<release> with the modules.dep and modules.builtin of depmod(8). What the kernel has built in needs no
// file.
func Modules(dir string, names ...string) ([]string, error) {
	deps, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		found := false
		for line := range bytes.Lines(slices.Concat(deps, builtin)) {
			// "FILE: NEEDED...", with what is needed last in front; FILE alone in modules.builtin
			file, needs, isFile := strings.Cut(strings.TrimSpace(string(line)), ":")
			if moduleName(file) != moduleName(name) {
				continue
			}
			found = true
			if !isFile {
				break
			}
			for _, f := range slices.Backward(strings.Fields(needs)) {
				files = append(files, f)
			}
			files = append(files, file)
			break
		}
		if !found {
			return nil, fmt.Errorf("kernel module %s: %s does not have it", name, dir)
		}
	}
	return unique(files), nil
}

// moduleName is a module's name as the kernel knows it: file names have - and _ alike.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func unique(names []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(name string) bool {
		was := seen[name]
		seen[name] = true
		return was
	})
}
