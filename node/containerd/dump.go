// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Table is a table of TOML as it is decoded.
type Table = map[string]any

// Dump is containerd's configuration as it understands its files: defaults, main file and imports in one.
type Dump Table

// The plugins that handlers belong to.
const (
	pluginV2 = "io.containerd.grpc.v1.cri"    // in files of version 2, and in containerd 1.7
	pluginV3 = "io.containerd.cri.v1.runtime" // in files of version 3 and later
)

// Dump lets containerd read its files.
func (c *Containerd) Dump(ctx context.Context) (Dump, error) { return c.dump(ctx, c.Config) }

// dump is what containerd makes of a main file and what it imports, or starts with if there is no such file. 2.0's dump leaves files of
// version 2 as they are, though the daemon converts them; 1.7 has no migrate, and its dump refuses without a file.
func (c *Containerd) dump(ctx context.Context, config string) (Dump, error) {
	v, err := c.Version(ctx)
	if err != nil {
		return nil, err
	}
	if v.Major > 1 {
		return c.print(ctx, "--config", config, "config", "migrate")
	}
	if _, err := c.tree.Stat(config); errors.Is(err, fs.ErrNotExist) {
		return c.print(ctx, "config", "default")
	}
	return c.print(ctx, "--config", config, "config", "dump")
}

func (c *Containerd) print(ctx context.Context, args ...string) (Dump, error) {
	out, err := c.run(ctx, args...)
	if err != nil {
		return nil, err
	}
	var d Dump
	if err := toml.Unmarshal(out, &d); err != nil {
		return nil, fmt.Errorf("what %s %s printed: %w", c.Binary, strings.Join(args, " "), err)
	}
	if len(d) == 0 {
		return nil, fmt.Errorf("%s %s printed nothing", c.Binary, strings.Join(args, " "))
	}
	return d, nil
}

// get is the value at a path of keys; nil if there is none.
func get(t Table, keys ...string) any {
	var v any = t
	for _, key := range keys {
		inner, _ := v.(Table)
		v = inner[key]
	}
	return v
}

// Handlers are the runtime handlers by name. It is an error if CRI is switched off, as some packages have it.
func (d Dump) Handlers() (map[string]Table, error) {
	disabled, _ := d["disabled_plugins"].([]any)
	for _, p := range disabled {
		if p == pluginV2 || p == pluginV3 || p == "cri" {
			return nil, fmt.Errorf("CRI is switched off: disabled_plugins in containerd's configuration has %q; take it out, as Kubernetes needs it", p)
		}
	}
	runtimes, ok := d.runtimes()
	if !ok {
		return nil, errors.New("containerd's configuration has no runtime handlers; is CRI built in?")
	}
	out := map[string]Table{}
	for name, v := range runtimes {
		if t, ok := v.(Table); ok {
			out[name] = t
		}
	}
	return out, nil
}

func (d Dump) runtimes() (Table, bool) {
	for _, plugin := range []string{pluginV3, pluginV2} {
		if t, ok := get(Table(d), "plugins", plugin, "containerd", "runtimes").(Table); ok {
			return t, true
		}
	}
	return nil, false
}

// DefaultHandler is the name of the handler of pods that name none.
func (d Dump) DefaultHandler() string {
	for _, plugin := range []string{pluginV3, pluginV2} {
		if name, ok := get(Table(d), "plugins", plugin, "containerd", "default_runtime_name").(string); ok {
			return name
		}
	}
	return ""
}

// Differences are the paths at which two configurations differ, sorted: but for the handlers that ours names, and for the list of
// imports, which says how the others came about.
func Differences(before, after Dump, ours func(handler string) bool) []string {
	var found []string
	compare(nil, without(before, ours), without(after, ours), &found)
	slices.Sort(found)
	return found
}

// without is a dump less the handlers that ours names, and less its imports. What it changes it copies.
func without(d Dump, ours func(string) bool) Table {
	out := maps.Clone(Table(d))
	delete(out, "imports")
	plugins, ok := out["plugins"].(Table)
	if !ok {
		return out
	}
	plugins = maps.Clone(plugins)
	out["plugins"] = plugins
	for _, id := range []string{pluginV3, pluginV2} {
		runtimes, ok := get(plugins, id, "containerd", "runtimes").(Table)
		if !ok {
			continue
		}
		plugin := maps.Clone(plugins[id].(Table))
		section := maps.Clone(plugin["containerd"].(Table))
		runtimes = maps.Clone(runtimes)
		maps.DeleteFunc(runtimes, func(name string, _ any) bool { return ours(name) })
		section["runtimes"], plugin["containerd"], plugins[id] = runtimes, section, plugin
	}
	return out
}

func compare(at []string, a, b any, found *[]string) {
	ta, isA := a.(Table)
	tb, isB := b.(Table)
	if !isA || !isB {
		if !reflect.DeepEqual(a, b) {
			*found = append(*found, strings.Join(at, "."))
		}
		return
	}
	keys := maps.Clone(ta)
	maps.Copy(keys, tb)
	for key := range keys {
		compare(append(slices.Clip(at), key), ta[key], tb[key], found)
	}
}

// Check lets containerd read files that are not in place yet. scratch is a directory of the node, in which nothing stays behind.
func (c *Containerd) Check(ctx context.Context, f Files, scratch string) (_ Dump, err error) {
	name := path.Join(scratch, "config.toml")
	if !f.MainExists {
		return c.dump(ctx, name)
	}
	layout, err := c.parse(f.Main)
	if err != nil {
		return nil, err
	}
	trial := path.Join(scratch, "drop-in.toml")
	defer func() {
		err = errors.Join(err, c.tree.Remove(name), c.tree.Remove(trial))
	}()
	imports, err := c.imported(layout.imports, f.DropInText != "", trial)
	if err != nil {
		return nil, err
	}
	if f.DropInText != "" {
		if err := c.tree.WriteFile(trial, []byte(f.DropInText), 0o600); err != nil {
			return nil, err
		}
	}
	if err := c.tree.WriteFile(name, []byte(layout.withImports(imports)), 0o600); err != nil {
		return nil, err
	}
	return c.dump(ctx, name)
}

// imported are the files that containerd imports by patterns of the main file, in its order (resolveImports): with trial in the
// place of our drop-in, or nothing.
func (c *Containerd) imported(patterns []string, have bool, trial string) ([]string, error) {
	ours := c.DropIn(patterns)
	var files []string
	for _, pattern := range patterns {
		pattern = c.absolute(pattern)
		if !strings.Contains(pattern, "*") {
			files = append(files, pattern)
			continue
		}
		if strings.Contains(path.Dir(pattern), "*") {
			return nil, fmt.Errorf("%s imports %s: patterns of directories are not supported here", c.Config, pattern)
		}
		found, err := c.tree.Glob(pattern)
		if err != nil {
			return nil, err
		}
		if ok, _ := path.Match(pattern, ours); ok && !slices.Contains(found, ours) { // Glob has found the pattern good
			found = append(found, ours)
			slices.Sort(found)
		}
		files = append(files, found...)
	}
	var out []string
	for _, file := range files {
		switch {
		case file != ours:
			out = append(out, file)
		case have && !slices.Contains(out, trial):
			out = append(out, trial)
		}
	}
	return out, nil
}
