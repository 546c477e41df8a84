// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// render writes handlers as tables of a plugin, sorted by name.
func render(plugin string, handlers map[string]Table) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		b.WriteString("\n")
		table(&b, "plugins."+quote(plugin)+".containerd.runtimes."+bare(name), "", handlers[name])
	}
	return b.String()
}

func table(b *strings.Builder, header, indent string, t Table) {
	fmt.Fprintf(b, "%s[%s]\n", indent, header)
	var inner []string
	for _, key := range slices.SortedFunc(maps.Keys(t), readable) {
		if _, ok := t[key].(Table); ok {
			inner = append(inner, key)
			continue
		}
		fmt.Fprintf(b, "%s  %s = %s\n", indent, bare(key), Value(t[key]))
	}
	for _, key := range inner {
		b.WriteString("\n")
		table(b, header+"."+bare(key), indent+"  ", t[key].(Table))
	}
}

// readable puts what says which runtime it is first.
func readable(a, b string) int {
	first := func(key string) int {
		if strings.HasPrefix(key, "runtime_") {
			return 0
		}
		return 1
	}
	return cmp.Or(first(a)-first(b), strings.Compare(a, b))
}

// Value writes a value as TOML has it.
func Value(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = Value(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v) // integers and booleans
}

// quote writes a basic string: JSON's escapes are TOML's.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into memory
	return strings.TrimSuffix(strings.ReplaceAll(b.String(), "\x7f", `\u007f`), "\n")
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func bare(key string) string {
	if bareKey.MatchString(key) {
		return key
	}
	return quote(key)
}
