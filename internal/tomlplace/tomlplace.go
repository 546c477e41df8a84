// SPDX-License-Identifier: Apache-2.0

// Package tomlplace finds where in a TOML document its keys stand, for messages about it.
package tomlplace

import "github.com/pelletier/go-toml/v2/unstable"

// Place is where a key stands in a file, from 1.
type Place struct{ Line, Column int }

// Of finds where each key of a document stands, by its path with points. data must be TOML. What the parser does not give stays
// unknown: a place only decorates a message.
func Of(data []byte) map[string]Place {
	found := map[string]Place{}
	var p unstable.Parser
	p.Reset(data)
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			prefix = note(&p, found, "", e.Key())
		case unstable.KeyValue:
			noteKeyValue(&p, found, prefix, e)
		}
	}
	return found
}

func noteKeyValue(p *unstable.Parser, found map[string]Place, prefix string, e *unstable.Node) {
	path := note(p, found, prefix, e.Key())
	if e.Value().Kind != unstable.InlineTable {
		return
	}
	for it := e.Value().Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			noteKeyValue(p, found, path, it.Node())
		}
	}
}

func note(p *unstable.Parser, found map[string]Place, prefix string, key unstable.Iterator) string {
	path := prefix
	for key.Next() {
		if path != "" {
			path += "."
		}
		path += string(key.Node().Data)
		if _, ok := found[path]; !ok {
			at := p.Shape(key.Node().Raw).Start
			found[path] = Place{at.Line, at.Column}
		}
	}
	return path
}
