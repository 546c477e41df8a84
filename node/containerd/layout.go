// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
)

// Files is what of ours is, or is to be, in containerd's configuration.
type Files struct {
	// DropIn is the path of our drop-in, and DropInText its content; empty: there is none.
	DropIn, DropInText string
	// Main is the whole text of the main file; MainExists is false if there is none.
	Main       string
	MainExists bool
}

// Read reads the files as they are.
func (c *Containerd) Read() (Files, error) {
	var f Files
	main, err := c.tree.ReadFile(c.Config)
	switch {
	case err == nil:
		f.Main, f.MainExists = string(main), true
	case !errors.Is(err, fs.ErrNotExist):
		return f, fmt.Errorf("containerd's main file: %w", err)
	}
	m, err := c.parse(f.Main)
	if err != nil {
		return f, err
	}
	f.DropIn = c.DropIn(m.imports)
	if info, err := c.tree.Lstat(f.DropIn); err == nil && !info.Mode().IsRegular() {
		return f, fmt.Errorf("%s is not a regular file: move it away, for it is where the handlers are to go", f.DropIn)
	}
	text, err := c.tree.ReadFile(f.DropIn)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err == nil && len(text) == 0 {
		return f, fmt.Errorf("%s is empty: remove it, for it is where the handlers are to go", f.DropIn)
	}
	f.DropInText = string(text)
	return f, nil
}

// Without is the files with nothing of ours in them. What others have changed of ours is an error.
func (c *Containerd) Without(f Files) (Files, error) {
	if f.DropInText != "" && !Sealed(f.DropInText) {
		return f, fmt.Errorf("%s was written or changed by somebody else: move it to another name, and run this again", f.DropIn)
	}
	f.DropInText = ""
	if f.MainExists && Sealed(f.Main) {
		f.Main, f.MainExists = "", false
		return f, nil
	}
	rest, _, err := stripBlock(f.Main)
	if err != nil {
		return f, fmt.Errorf("%s: %w", c.Config, err)
	}
	f.Main = c.stripImport(rest, c.ImportPattern())
	return f, nil
}

// Restore is the files with what others have of ours, at an earlier time, in the place of what these have.
func (c *Containerd) Restore(f, others Files) (Files, error) {
	clean, err := c.Without(f)
	if err != nil {
		return f, err
	}
	theirs, err := c.Without(others)
	if err != nil {
		return f, err
	}
	if clean.Main == theirs.Main && clean.MainExists == theirs.MainExists {
		return others, nil
	}
	// The operator has changed the main file since.
	rest, tables, err := stripBlock(others.Main)
	if err != nil {
		return f, err
	}
	if tables != "" {
		clean.Main, clean.MainExists = addBlock(clean.Main, tables), true
	}
	if theirs.MainExists && theirs.Main != rest {
		m, err := c.parse(clean.Main)
		if err != nil {
			return f, err
		}
		clean.Main, clean.MainExists = m.addImport(c.ImportPattern()), true
	}
	clean.DropIn, clean.DropInText = others.DropIn, others.DropInText
	return clean, nil
}

// With is the files with handlers in them, where there was nothing of ours. How depends on the main file's form and on containerd's
// version; all is what the configuration has without ours (see below).
//
// 2.x merges what files say of one handler, so handlers go into a drop-in: in the form of the main file's version, because 2.0 to 2.2
// merge first and convert by the highest version found. 1.7 takes what an imported file says of a plugin in the place of all that
// the main file says of it, so they go into the main file; and since there a table of handlers takes the place of the built-in one,
// the built-in handlers are written too when the main file has none of its own.
func (c *Containerd) With(f Files, v Version, handlers, all map[string]Table) (Files, error) {
	m, err := c.parse(f.Main)
	if err != nil {
		return f, err
	}
	if v.Major == 1 {
		return c.withBlock(f, m, handlers, all)
	}
	plugin, version := pluginV3, 3
	if m.version == 2 {
		plugin, version = pluginV2, 2
	}
	f.DropIn = c.DropIn(m.imports)
	f.DropInText = Seal(fmt.Sprintf("version = %d\n", version) + render(plugin, handlers))
	if c.covers(m.imports, f.DropIn) {
		return f, nil
	}
	if f.MainExists {
		f.Main = m.addImport(c.ImportPattern())
		return f, nil
	}
	m.text = "version = 3\n"
	f.Main, f.MainExists = Seal(m.addImport(c.ImportPattern())), true
	return f, nil
}

func (c *Containerd) withBlock(f Files, m *mainFile, handlers, all map[string]Table) (Files, error) {
	if f.MainExists && m.version != 2 {
		return f, fmt.Errorf("%s has version %d, and containerd 1.7 has to be configured in version 2 here: write it with version = 2 and the plugins' full names", c.Config, m.version)
	}
	if !m.runtimes {
		handlers = maps.Clone(handlers)
		for name, t := range all {
			if _, ours := handlers[name]; !ours {
				handlers[name] = t
			}
		}
	}
	tables := render(pluginV2, handlers)
	tables = strings.TrimPrefix(tables, "\n")
	if !f.MainExists {
		f.Main, f.MainExists = Seal(addBlock("version = 2\n", tables)), true
		return f, nil
	}
	f.Main = addBlock(f.Main, tables)
	return f, nil
}
