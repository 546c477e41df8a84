// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"

	"metsuke.dev/metsuke/internal/tomlfile"
)

// Parse reads a configuration from data; file is its name in errors.
func Parse(file string, data []byte) (*Config, error) {
	f, err := tomlfile.Parse(file, data, Version)
	if err != nil {
		return nil, err
	}
	c := Default()
	tomlfile.Fill(f, "", f.Doc, c, slices.Concat(fields, c.delegateFields(f)))
	c.check(f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return c, nil
}
