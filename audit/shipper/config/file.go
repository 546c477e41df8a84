// SPDX-License-Identifier: Apache-2.0

package config

import "metsuke.dev/metsuke/internal/tomlfile"

// File is a file that records are appended to.
type File struct {
	Path    string
	MaxSize int64 // bytes after which the file is renamed and a new one begun; 0: never
	Keep    int   // how many renamed files are kept, Path.1 being the newest; older ones are removed
}

func defaultFile() *File { return &File{Keep: 5} }

var fileFields = []tomlfile.Field[*Sink]{
	{Path: "path", Set: func(s *Sink, v any) string { return tomlfile.Path(&s.File.Path, v) }},
	{Path: "max_size", Set: func(s *Sink, v any) string { return quantity(&s.File.MaxSize, v, 1<<20, 1<<40) }},
	{Path: "keep", Set: func(s *Sink, v any) string { return tomlfile.Int(&s.File.Keep, v, 0, 1000) }},
}

var fileRequired = []required{{"path", "the file's absolute path"}}
