// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Headers reads a file with headers, a line "NAME: VALUE" each. Empty lines, and those that begin with #, are passed over. Names come back in lower
// case, as gRPC and HTTP/2 want them.
func Headers(path string) (map[string]string, error) {
	text, err := Secret(path)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || value == "" {
			return nil, fmt.Errorf("%s:%d: not a header; expected NAME: VALUE", path, n)
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("%s:%d: a second header of this name", path, n)
		}
		all[name] = value
	}
	return all, nil
}
