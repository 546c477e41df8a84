// SPDX-License-Identifier: Apache-2.0

// Package containerdtest is a stand-in for the containerd binary in tests: it prints a version and a configuration, with the rules
// by which the real one reads its files.
package containerdtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"metsuke.dev/metsuke/node/tree"
)

type table = map[string]any

const (
	v2 = "io.containerd.grpc.v1.cri"
	v3 = "io.containerd.cri.v1.runtime"
)

// Fake is a containerd of version Version on the files of Tree.
type Fake struct {
	Tree    *tree.Tree
	Version string // "2.4.2" or "1.7.35"
}

func (f *Fake) old() bool { return strings.HasPrefix(f.Version, "1.") }

// Run does what the binary does with these arguments.
func (f *Fake) Run(_ context.Context, args ...string) ([]byte, error) {
	switch {
	case slices.Equal(args, []string{"--version"}):
		return fmt.Appendf(nil, "containerd github.com/containerd/containerd v%s 0123456789abcdef\n", f.Version), nil
	case slices.Equal(args, []string{"config", "default"}):
		return toml.Marshal(f.defaults())
	case len(args) == 4 && args[0] == "--config" && args[2] == "config" && (args[3] == "dump") == f.old():
		doc, err := f.load(args[1])
		if err != nil {
			return nil, err
		}
		return toml.Marshal(doc)
	}
	return nil, fmt.Errorf("unknown arguments %q", args)
}

func (f *Fake) plugin() string {
	if f.old() {
		return v2
	}
	return v3
}

func (f *Fake) defaults() table {
	runc := table{
		"runtime_type": "io.containerd.runc.v2", "runtime_path": "", "pod_annotations": []any{}, "base_runtime_spec": "", "snapshotter": "",
		"privileged_without_host_devices": false, "cni_max_conf_num": int64(0),
		"options": table{"BinaryName": "", "SystemdCgroup": false, "IoUid": int64(0)},
	}
	cri := table{"containerd": table{"default_runtime_name": "runc", "runtimes": table{"runc": runc}}}
	return table{
		"version": int64(3), "root": "/var/lib/containerd", "grpc": table{"address": "/run/containerd/containerd.sock"},
		"disabled_plugins": []any{}, "plugins": table{f.plugin(): cri}, "imports": []any{},
	}
}

// load reads a main file and what it imports.
func (f *Fake) load(main string) (table, error) {
	out, stated := f.defaults(), table{}
	var loaded []any
	for pending := []string{main}; len(pending) > 0; {
		file := pending[0]
		pending = pending[1:]
		if slices.Contains(loaded, any(file)) {
			continue
		}
		text, err := f.Tree.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && file == main && !f.old() {
			return f.defaults(), nil
		}
		if err != nil {
			return nil, err
		}
		var doc table
		if err := toml.Unmarshal(text, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		loaded = append(loaded, file)
		imports, _ := doc["imports"].([]any)
		delete(doc, "imports")
		delete(doc, "version")
		plugins, _ := doc["plugins"].(table)
		delete(doc, "plugins")
		merge(out, doc)
		switch {
		case f.old(): // "Replace entire sections instead of merging map's values"
			maps.Copy(stated, plugins)
		default:
			if cri, ok := plugins[v2].(table); ok { // each file is migrated by itself
				delete(plugins, v2)
				merge(plugins, table{v3: cri})
			}
			merge(stated, plugins)
		}
		for _, pattern := range imports {
			files, err := f.resolve(path.Dir(file), pattern.(string))
			if err != nil {
				return nil, err
			}
			pending = append(pending, files...)
		}
	}
	out["imports"] = loaded
	f.decode(out["plugins"].(table), stated)
	return out, nil
}

// decode puts what files state over the defaults of plugins.
func (f *Fake) decode(plugins, stated table) {
	if f.old() {
		// go-toml's first version makes a map anew: stated handlers take the place of the built-in ones.
		cri, _ := stated[v2].(table)
		section, _ := cri["containerd"].(table)
		if _, ok := section["runtimes"].(table); ok {
			plugins[v2].(table)["containerd"].(table)["runtimes"] = table{}
		}
	}
	merge(plugins, stated)
}

func (f *Fake) resolve(dir, pattern string) ([]string, error) {
	if !path.IsAbs(pattern) {
		pattern = path.Join(dir, pattern)
	}
	if strings.Contains(pattern, "*") {
		return f.Tree.Glob(pattern)
	}
	if _, err := f.Tree.Stat(pattern); errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return []string{pattern}, nil
}

func merge(to, from table) {
	for key, v := range from {
		inner, ok := v.(table)
		have, has := to[key].(table)
		if ok && has {
			merge(have, inner)
			continue
		}
		if ok {
			fresh := table{}
			merge(fresh, inner)
			v = fresh
		}
		to[key] = v
	}
}
