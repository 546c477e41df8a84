// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// A mainFile is containerd's main file, with what matters of it here.
type mainFile struct {
	text     string
	version  int64 // 0: it does not say
	imports  []string
	runtimes bool // it has tables of handlers itself

	array     [2]int // where the array of imports is in text, brackets included; 0, 0: it has none
	versionAt int    // where the line of version begins
}

func (c *Containerd) parse(text string) (*mainFile, error) {
	var doc Table
	if err := toml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Config, err)
	}
	m := &mainFile{text: text}
	m.version, _ = doc["version"].(int64)
	list, ok := doc["imports"].([]any)
	if _, stated := doc["imports"]; stated && !ok {
		return nil, fmt.Errorf("%s: imports is not an array", c.Config)
	}
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%s: imports has %v, which is no path", c.Config, v)
		}
		m.imports = append(m.imports, s)
	}
	for _, plugin := range []string{pluginV3, pluginV2} {
		if _, ok := get(doc, "plugins", plugin, "containerd", "runtimes").(Table); ok {
			m.runtimes = true
		}
	}
	m.locate()
	return m, nil
}

// locate finds the version and the array of imports in a text that has been decoded, and so is well formed.
func (m *mainFile) locate() {
	var p unstable.Parser
	p.Reset([]byte(m.text))
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue {
			break // the first table: what follows is not at the top level
		}
		key := e.Key()
		if !key.Next() || !key.IsLast() {
			continue
		}
		at := int(key.Node().Raw.Offset)
		switch string(key.Node().Data) {
		case "version":
			m.versionAt = strings.LastIndexByte(m.text[:at], '\n') + 1
		case "imports":
			at += int(key.Node().Raw.Length)
			begin := at + strings.IndexByte(m.text[at:], '[')
			m.array = [2]int{begin, begin + arrayLength(m.text[begin:])}
		}
	}
}

// arrayLength is the length of the array of strings that text begins with.
func arrayLength(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case ']':
			return i + 1
		case '#':
			i += strings.IndexByte(text[i:], '\n')
		case '"', '\'':
			quote := text[i]
			for i++; i < len(text) && text[i] != quote; i++ {
				if text[i] == '\\' && quote == '"' {
					i++
				}
			}
		}
	}
	return len(text)
}

// withImports is the text with another array of imports.
func (m *mainFile) withImports(files []string) string {
	if m.array[1] == 0 {
		return m.text // and files is empty
	}
	quoted := make([]string, len(files))
	for i, file := range files {
		quoted[i] = quote(file)
	}
	return m.text[:m.array[0]] + "[" + strings.Join(quoted, ", ") + "]" + m.text[m.array[1]:]
}

// absolute is an import as containerd resolves it.
func (c *Containerd) absolute(pattern string) string {
	pattern = path.Clean(pattern)
	if !path.IsAbs(pattern) {
		pattern = path.Join(path.Dir(c.Config), pattern)
	}
	return pattern
}

// dropInName is the name of our drop-in.
const dropInName = "metsuke.toml"

// DropIn is where our drop-in goes: where the main file imports it from already, or else in conf.d beside the main file.
func (c *Containerd) DropIn(imports []string) string {
	for _, pattern := range imports {
		pattern = c.absolute(pattern)
		file := path.Join(path.Dir(pattern), dropInName)
		if strings.Contains(path.Base(pattern), "*") && !strings.Contains(path.Dir(pattern), "*") {
			if ok, err := path.Match(pattern, file); err == nil && ok {
				return file
			}
		}
	}
	return path.Join(path.Dir(c.Config), "conf.d", dropInName)
}

// ImportPattern is what is added to the imports of a main file that has none which covers our drop-in. It is a pattern because
// containerd does not start when a file that is imported by its name is not there. It matches our drop-in alone.
func (c *Containerd) ImportPattern() string {
	return path.Join(path.Dir(c.Config), "conf.d", "metsuke.*toml")
}

// covers reports whether the main file imports our drop-in by itself.
func (c *Containerd) covers(imports []string, dropIn string) bool {
	return slices.ContainsFunc(imports, func(pattern string) bool {
		ok, err := path.Match(c.absolute(pattern), dropIn)
		return err == nil && ok
	})
}
