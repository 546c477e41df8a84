// SPDX-License-Identifier: Apache-2.0

// Package tomlplace finds where in a TOML document its keys stand, for messages about it.
package tomlplace

import (
	"fmt"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Place is where a key stands in a file, from 1.
type Place struct{ Line, Column int }

// Of finds where each key of a document stands, by its path with points. The tables of an array are told apart by their index, from 0:
// sinks[1].name. data must be TOML. What the parser does not give stays unknown: a place only decorates a message.
func Of(data []byte) map[string]Place {
	f := finder{found: map[string]Place{}, tables: map[string]int{}}
	f.p.Reset(data)
	prefix := ""
	for f.p.NextExpression() {
		e := f.p.Expression()
		switch e.Kind {
		case unstable.Table:
			prefix = f.note("", e.Key())
		case unstable.ArrayTable:
			prefix = f.noteElement(e)
		case unstable.KeyValue:
			f.noteKeyValue(prefix, e)
		}
	}
	return f.found
}

type finder struct {
	p      unstable.Parser
	found  map[string]Place
	tables map[string]int // arrays of tables, by their path: how many there were
}

// noteElement notes one more table of an array.
func (f *finder) noteElement(e *unstable.Node) (path string) {
	var at Place
	for key := e.Key(); key.Next(); {
		path = f.last(path)
		if path != "" {
			path += "."
		}
		path += string(key.Node().Data)
		at = f.place(key.Node())
	}
	if _, ok := f.found[path]; !ok {
		f.found[path] = at
	}
	f.tables[path]++
	path = f.last(path)
	f.found[path] = at
	return path
}

// last is the path of the last table so far, where path is of an array of them: that is the one which further keys go on with.
func (f *finder) last(path string) string {
	if n := f.tables[path]; n > 0 {
		return fmt.Sprintf("%s[%d]", path, n-1)
	}
	return path
}

func (f *finder) noteKeyValue(prefix string, e *unstable.Node) {
	path := f.note(prefix, e.Key())
	if e.Value().Kind != unstable.InlineTable {
		return
	}
	for it := e.Value().Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			f.noteKeyValue(path, it.Node())
		}
	}
}

func (f *finder) note(prefix string, key unstable.Iterator) string {
	path := prefix
	for key.Next() {
		path = f.last(path)
		if path != "" {
			path += "."
		}
		path += string(key.Node().Data)
		if _, ok := f.found[path]; !ok {
			f.found[path] = f.place(key.Node())
		}
	}
	return path
}

func (f *finder) place(key *unstable.Node) Place {
	at := f.p.Shape(key.Raw).Start
	return Place{at.Line, at.Column}
}
