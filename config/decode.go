// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/tomlplace"
)

// Parse reads a configuration from data; file is its name in errors.
func Parse(file string, data []byte) (*Config, error) {
	r := &reader{file: file, config: Default()}
	if len(data) > maxSize {
		return nil, &diagnostic.Error{File: file, Msg: fmt.Sprintf("is larger than %d bytes", maxSize)}
	}
	var doc map[string]any
	if err := toml.Unmarshal(data, &doc); err != nil {
		return nil, r.syntax(err)
	}
	r.places = tomlplace.Of(data)
	// The version first: a later form may differ in everything else.
	if !r.version(doc) {
		return nil, diagnostic.Join(r.errs)
	}
	fields := slices.Clone(fields)
	fields = append(fields, r.delegateFields(doc)...)
	r.table("", doc, fields)
	r.check()
	if err := diagnostic.Join(r.errs); err != nil {
		return nil, err
	}
	return r.config, nil
}

// A field of the file. Its set reports what was expected instead, or "".
type field struct {
	path string
	set  func(c *Config, value any) (expected string)
}

type reader struct {
	file   string
	config *Config
	places map[string]tomlplace.Place
	errs   []*diagnostic.Error
}

func (r *reader) errorf(path, msg, hint string) {
	at := r.places[path]
	r.errs = append(r.errs, &diagnostic.Error{File: r.file, Line: at.Line, Column: at.Column, Field: path, Msg: msg, Hint: hint})
}

func (r *reader) syntax(err error) error {
	var d *toml.DecodeError
	if !errors.As(err, &d) {
		return &diagnostic.Error{File: r.file, Msg: "is not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
	}
	line, column := d.Position()
	return &diagnostic.Error{
		File: r.file, Line: line, Column: column, Field: strings.Join(d.Key(), "."),
		Msg: "is not TOML: " + strings.TrimPrefix(d.Error(), "toml: "),
	}
}

func (r *reader) version(doc map[string]any) bool {
	switch v, ok := doc["version"]; {
	case !ok:
		r.errorf("version", "is missing", fmt.Sprintf("expected version = %d", Version))
	case v != int64(Version):
		r.errorf("version", fmt.Sprintf("%v is not a version that this program reads", show(v)), fmt.Sprintf("expected %d", Version))
	}
	return len(r.errs) == 0
}

// table walks one table of the file; prefix is its path with a point, or "".
func (r *reader) table(prefix string, t map[string]any, fields []field) {
	for _, key := range sortedKeys(t) {
		path := prefix + key
		if i := slices.IndexFunc(fields, func(f field) bool { return f.path == path }); i >= 0 {
			if expected := fields[i].set(r.config, t[key]); expected != "" {
				r.errorf(path, show(t[key])+" is not a value of this field", "expected "+expected)
			}
			continue
		}
		isTable := slices.ContainsFunc(fields, func(f field) bool { return strings.HasPrefix(f.path, path+".") })
		switch inner, ok := t[key].(map[string]any); {
		case isTable && ok:
			r.table(path+".", inner, fields)
		case isTable:
			r.errorf(path, show(t[key])+" is not a value of this field", "expected a table")
		default:
			r.unknown(prefix, key, fields)
		}
	}
}

func (r *reader) unknown(prefix, key string, fields []field) {
	var here []string
	for _, f := range fields {
		rest, ok := strings.CutPrefix(f.path, prefix)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(here, name) {
			here = append(here, name)
		}
	}
	hint := diagnostic.Expected(key, here)
	if len(here) == 0 {
		hint = ""
	}
	r.errorf(prefix+key, "is not a known field", hint)
}
