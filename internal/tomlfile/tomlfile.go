// SPDX-License-Identifier: Apache-2.0

// Package tomlfile decodes TOML files that people write, strictly: what is unknown, of a wrong type or out of bounds is told with its
// place in the file, all faults at once.
package tomlfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/tomlplace"
)

// MaxSize bounds a file, in bytes.
const MaxSize = 64 << 10

// File is a document, and what is wrong with it so far. It is not safe for concurrent use.
type File struct {
	Doc    map[string]any
	name   string
	places map[string]tomlplace.Place
	errs   []*diagnostic.Error
}

// Read reads a regular file of up to MaxSize bytes. The error wraps fs.ErrNotExist if there is none.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(&fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}, err)
	}
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// Parse decodes a document and looks at its version, which is first: a later form may differ in everything else. name is the file's in
// errors, which are *diagnostic.Errors, joined.
func Parse(name string, data []byte, version int64) (*File, error) {
	f := &File{name: name, Doc: map[string]any{}}
	if len(data) > MaxSize {
		return nil, &diagnostic.Error{File: name, Msg: fmt.Sprintf("is larger than %d bytes", MaxSize)}
	}
	if err := toml.Unmarshal(data, &f.Doc); err != nil {
		return nil, f.syntax(err)
	}
	f.places = tomlplace.Of(data)
	switch v, ok := f.Doc["version"]; {
	case !ok:
		f.Errorf("version", "is missing", fmt.Sprintf("expected version = %d", version))
	case v != version:
		f.Errorf("version", Show(v)+" is not a version that this program reads", fmt.Sprintf("expected %d", version))
	}
	return f, f.Err()
}

func (f *File) syntax(err error) error {
	var d *toml.DecodeError
	if !errors.As(err, &d) {
		return &diagnostic.Error{File: f.name, Msg: "is not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
	}
	line, column := d.Position()
	return &diagnostic.Error{
		File: f.name, Line: line, Column: column, Field: strings.Join(d.Key(), "."),
		Msg: "is not TOML: " + strings.TrimPrefix(d.Error(), "toml: "),
	}
}

// Errorf notes a fault of a field.
func (f *File) Errorf(path, msg, hint string) {
	at, ok := f.places[path]
	for parent := path; !ok && strings.Contains(parent, "."); { // what is missing stands nowhere: its table does
		parent = parent[:strings.LastIndex(parent, ".")]
		at, ok = f.places[parent]
	}
	f.errs = append(f.errs, &diagnostic.Error{File: f.name, Line: at.Line, Column: at.Column, Field: path, Msg: msg, Hint: hint})
}

// Err returns all faults so far as one error; nil if there are none.
func (f *File) Err() error { return diagnostic.Join(f.errs) }

// Field is one field of a table. Its Set takes the value in, and reports what was expected instead, or "".
type Field[T any] struct {
	Path string // below the table, with points
	Set  func(to T, value any) (expected string)
	Hide bool // what is not a value of the field may have a secret, and is in no message
}

// Fill takes a table of the file in, field by field. path is the table's own, "" for the document.
func Fill[T any](f *File, path string, table map[string]any, to T, fields []Field[T]) {
	fill(f, path, "", table, to, fields)
}

func fill[T any](f *File, base, prefix string, table map[string]any, to T, fields []Field[T]) {
	whole := func(path string) string { return strings.TrimPrefix(base+"."+path, ".") }
	for _, key := range slices.Sorted(maps.Keys(table)) {
		path := prefix + key
		if i := slices.IndexFunc(fields, func(f Field[T]) bool { return f.Path == path }); i >= 0 {
			if expected := fields[i].Set(to, table[key]); expected != "" {
				shown := Show(table[key])
				if fields[i].Hide {
					shown = "what it has"
				}
				f.Errorf(whole(path), shown+" is not a value of this field", "expected "+expected)
			}
			continue
		}
		isTable := slices.ContainsFunc(fields, func(f Field[T]) bool { return strings.HasPrefix(f.Path, path+".") })
		switch inner, ok := table[key].(map[string]any); {
		case isTable && ok:
			fill(f, base, path+".", inner, to, fields)
		case isTable:
			f.Errorf(whole(path), Show(table[key])+" is not a value of this field", "expected a table")
		default:
			f.Errorf(whole(path), "is not a known field", diagnostic.Expected(key, names(prefix, fields)))
		}
	}
}

// names are those of the fields and tables directly below a prefix.
func names[T any](prefix string, fields []Field[T]) (here []string) {
	for _, f := range fields {
		if rest, ok := strings.CutPrefix(f.Path, prefix); ok {
			if name, _, _ := strings.Cut(rest, "."); !slices.Contains(here, name) {
				here = append(here, name)
			}
		}
	}
	return here
}

// Show shows a value of a file inside a message.
func Show(v any) string {
	switch v := v.(type) {
	case string:
		return diagnostic.Quote(v)
	case map[string]any:
		return "a table"
	case []any:
		return "an array"
	}
	s := fmt.Sprint(v)
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return s
}
