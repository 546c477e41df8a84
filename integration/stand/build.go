// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Where built things are, in the environment of the program inside. A caller may set METSUKE_BIN, to run binaries that it
// built itself.
const (
	binVariable      = "METSUKE_BIN"            // directory of containerd-shim-metsuke-v2, metsuke-guest, metsuke
	workloadVariable = "METSUKE_STAND_WORKLOAD" // the test workload, one static binary
	setVariable      = "METSUKE_STAND_SET_"     // + set: directory of a tool set
)

// build makes, outside, all that may need the network, and tells the program inside where it is.
func build(sets []string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	tools := exec.Command(filepath.Join(root, "tools", "build.sh"), append([]string{"busybox"}, sets...)...)
	tools.Stderr = os.Stderr
	out, err := tools.Output()
	if err != nil {
		return fmt.Errorf("build the tools %s: %w", strings.Join(sets, " "), err)
	}
	for line := range strings.Lines(string(out)) {
		if set, dir, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			if err := os.Setenv(setVariable+set, dir); err != nil {
				return err
			}
		}
	}

	cache := binDir(root)
	for _, d := range delegates {
		if !slices.ContainsFunc(d.tools(), func(set string) bool { return !slices.Contains(sets, set) }) {
			if err := d.build(root); err != nil {
				return err
			}
		}
	}
	if os.Getenv(workloadVariable) == "" {
		out := filepath.Join(cache, "workload")
		if err := goBuild(root, out, "./cmd/workload"); err != nil {
			return err
		}
		if err := os.Setenv(workloadVariable, out); err != nil {
			return err
		}
	}
	if os.Getenv(binVariable) != "" {
		return nil
	}
	product := filepath.Dir(root)
	for _, name := range []string{"containerd-shim-metsuke-v2", "metsuke-guest", "metsuke"} {
		if err := goBuild(product, filepath.Join(cache, name), "./cmd/"+name); err != nil {
			return err
		}
	}
	return os.Setenv(binVariable, cache)
}

// binDir is where binaries lie that are built of this checkout: a directory of its own, or a run from another checkout would
// replace what a guest is being started with. Not a temporary one: one run after the other reuses them.
func binDir(root string) string {
	sum := sha256.Sum256([]byte(root))
	return filepath.Join(CacheDir(), "bin", hex.EncodeToString(sum[:8]))
}

// goBuild builds one static binary. It is written beside its place and renamed there, because another stand may run it.
func goBuild(dir, out, pkg string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	fresh := fmt.Sprintf("%s.%d", out, os.Getpid())
	defer func() { _ = os.Remove(fresh) }()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", fresh, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return os.Rename(fresh, out)
}

// moduleRoot is the directory of this module, found from the source file's place or the working directory.
func moduleRoot() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		root := filepath.Dir(filepath.Dir(file))
		if _, err := os.Stat(filepath.Join(root, "tools", "build.sh")); err == nil {
			return root, nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		for _, root := range []string{dir, filepath.Join(dir, "integration")} {
			if _, err := os.Stat(filepath.Join(root, "tools", "build.sh")); err == nil {
				return root, nil
			}
		}
	}
	return "", errors.New("the integration module's tools/build.sh is not found: run this inside the checkout")
}

// CacheDir is where built tools are kept between runs; METSUKE_CACHE overrides it.
func CacheDir() string {
	if dir := os.Getenv("METSUKE_CACHE"); dir != "" {
		return dir
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "metsuke")
	}
	return filepath.Join(os.TempDir(), "metsuke-cache")
}

// ToolSet is the directory of a tool set. Its name is another one when what the set is made of changes.
func ToolSet(set string) (string, error) {
	dir := os.Getenv(setVariable + set)
	if dir == "" {
		return "", fmt.Errorf("tool set %q was not named in Enter", set)
	}
	return dir, nil
}

// Tool is the path of a program of a tool set, such as Tool("critools", "crictl").
func Tool(set, name string) (string, error) {
	dir, err := ToolSet(set)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	return path, nil
}

// Metsuke is the path of one of the product's binaries.
func Metsuke(name string) string { return filepath.Join(os.Getenv(binVariable), name) }

// Workload is the path of the test workload (cmd/workload) on the host; in images it is /bin/workload.
func Workload() string { return os.Getenv(workloadVariable) }
