// SPDX-License-Identifier: Apache-2.0

package ocsf

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var exported = flag.String("schema", "", "take testdata/schema.json anew from this export of OCSF's schema (testdata/README.md)")

// schema is what is kept of OCSF's own schema, in the form of its export: the classes that we write and the objects in them.
type schema struct {
	Version    string `json:"version"`
	Dictionary struct {
		Types struct {
			Attributes map[string]scalar `json:"attributes"`
		} `json:"types"`
	} `json:"dictionary"`
	Classes map[string]*object `json:"classes"`
	Objects map[string]*object `json:"objects"`
}

// scalar is a type of values that are no objects.
type scalar struct {
	Type   string    `json:"type,omitempty"` // that it is one of; empty: JSON's
	Regex  string    `json:"regex,omitempty"`
	Range  *[2]int64 `json:"range,omitempty"`
	MaxLen int       `json:"max_len,omitempty"`
	Values []any     `json:"values,omitempty"`
}

// object is a class or an object.
type object struct {
	UID         int                  `json:"uid,omitempty"`
	Caption     string               `json:"caption"`
	CategoryUID int                  `json:"category_uid,omitempty"`
	Category    string               `json:"category_name,omitempty"`
	Profiles    []string             `json:"profiles,omitempty"`
	Constraints map[string][]string  `json:"constraints,omitempty"`
	Attributes  map[string]attribute `json:"attributes"`
}

type attribute struct {
	Type        string             `json:"type"`
	Requirement string             `json:"requirement"`
	Object      string             `json:"object_type,omitempty"`
	Array       bool               `json:"is_array,omitempty"`
	Profiles    []string           `json:"profiles,omitempty"`
	Sibling     string             `json:"sibling,omitempty"`
	Deprecated  any                `json:"@deprecated,omitempty"`
	Enum        map[string]caption `json:"enum,omitempty"`
}

type caption struct {
	Caption string `json:"caption"`
}

const schemaFile = "testdata/schema.json"

// ourObjects are the objects that events hold.
var ourObjects = strings.Fields("actor analytic container device evidences file finding_info group image kernel metadata network_connection_info " +
	"network_endpoint object policy process product related_event session user")

func loadSchema(t testing.TB) *schema {
	t.Helper()
	path := schemaFile
	if *exported != "" {
		path = *exported
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := new(schema)
	if err := json.Unmarshal(data, s); err != nil {
		t.Fatal(err)
	}
	if *exported != "" {
		s.keep(t)
	}
	if s.Version != Version {
		t.Fatalf("the schema is of version %s, events of %s", s.Version, Version)
	}
	return s
}

// keep leaves out what events do not have, and writes the rest.
func (s *schema) keep(t testing.TB) {
	used := map[int]bool{}
	for _, row := range append(slices.Clone(mapping), findingRow()) {
		used[row.Class.UID] = true
	}
	for name, class := range s.Classes {
		if !used[class.UID] {
			delete(s.Classes, name)
		}
	}
	for name := range s.Objects {
		if !slices.Contains(ourObjects, name) {
			delete(s.Objects, name)
		}
	}
	for _, all := range []map[string]*object{s.Classes, s.Objects} {
		for _, o := range all {
			for name, a := range o.Attributes {
				if a.Deprecated != nil {
					a.Deprecated = true
				}
				o.Attributes[name] = a
			}
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	// A line for each attribute, so that a change can be read.
	text := strings.ReplaceAll(out.String(), `},"`, "},\n\"")
	if err := os.WriteFile(schemaFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// check returns what is wrong with an event: strictly, so that nothing passes that the schema does not name.
func (s *schema) check(event map[string]any) (problems []string) {
	for _, class := range s.Classes {
		if strconv.Itoa(class.UID) == number(event["class_uid"]) {
			c := checker{schema: s}
			meta, _ := event["metadata"].(map[string]any)
			for _, p := range list(meta["profiles"]) {
				name, _ := p.(string)
				if !slices.Contains(class.Profiles, name) {
					c.problem("", "profile %q is none of the class", name)
				}
				c.profiles = append(c.profiles, name)
			}
			c.object("", class, event)
			return c.problems
		}
	}
	return []string{fmt.Sprintf("class %v is not known", event["class_uid"])}
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

type checker struct {
	schema   *schema
	profiles []string
	problems []string
}

func (c *checker) problem(at, format string, args ...any) {
	c.problems = append(c.problems, strings.TrimPrefix(at, ".")+": "+fmt.Sprintf(format, args...))
}

// has tells whether an attribute is one of the event's profiles, or of none.
func (c *checker) has(a attribute) bool {
	return len(a.Profiles) == 0 || slices.ContainsFunc(a.Profiles, func(p string) bool { return slices.Contains(c.profiles, p) })
}

func (c *checker) object(at string, o *object, value map[string]any) {
	for name, v := range value {
		a, ok := o.Attributes[name]
		switch {
		case !ok:
			c.problem(at+"."+name, "no such attribute of %s", o.Caption)
		case !c.has(a):
			c.problem(at+"."+name, "only with profile %v", a.Profiles)
		case a.Deprecated != nil:
			c.problem(at+"."+name, "deprecated")
		case a.Array != (list(v) != nil):
			c.problem(at+"."+name, "a list: %v, but is %v", a.Array, v)
		case a.Array:
			for i, v := range list(v) {
				c.value(fmt.Sprintf("%s.%s[%d]", at, name, i), a, v)
			}
		default:
			c.value(at+"."+name, a, v)
			c.sibling(at+"."+name, a, v, value)
		}
	}
	for name, a := range o.Attributes {
		if _, ok := value[name]; !ok && a.Requirement == "required" && c.has(a) {
			c.problem(at+"."+name, "required of %s", o.Caption)
		}
	}
	for constraint, names := range o.Constraints {
		n := 0
		for _, name := range names {
			if _, ok := value[name]; ok {
				n++
			}
		}
		if n == 0 || constraint == "just_one" && n > 1 {
			c.problem(at, "%s has %d of %v: %s", o.Caption, n, names, constraint)
		}
	}
}

// sibling checks that a name is that of its number.
func (c *checker) sibling(at string, a attribute, v any, of map[string]any) {
	if a.Sibling == "" || a.Enum == nil {
		return
	}
	name, ok := of[a.Sibling]
	caption := a.Enum[number(v)].Caption
	if number(v) != strconv.Itoa(other) && ok && name != caption {
		c.problem(at, "%v is %q, its name says %q", v, caption, name)
	}
	if number(v) == strconv.Itoa(other) && (!ok || name == caption) {
		c.problem(at, "what is not mapped needs a name of its own")
	}
}

func number(v any) string {
	n, ok := v.(json.Number)
	if !ok {
		return fmt.Sprint(v)
	}
	return n.String()
}

func (c *checker) value(at string, a attribute, v any) {
	if a.Enum != nil {
		if _, ok := a.Enum[number(v)]; !ok {
			c.problem(at, "%v is none of its values", v)
		}
	}
	if a.Type == "object_t" {
		o := c.schema.Objects[a.Object]
		value, ok := v.(map[string]any)
		switch {
		case !ok:
			c.problem(at, "not an object: %v", v)
		case o == nil:
			c.problem(at, "object %s is not in %s", a.Object, schemaFile)
		case a.Object != "object": // which may hold anything
			c.object(at, o, value)
		}
		return
	}
	c.scalar(at, a.Type, v)
}

func (c *checker) scalar(at, name string, v any) {
	kind, ok := c.schema.Dictionary.Types.Attributes[name]
	if !ok {
		c.problem(at, "type %q is not known", name)
		return
	}
	s, isString := v.(string)
	n, isNumber := v.(json.Number)
	_, isBool := v.(bool)
	whole, err := strconv.ParseInt(n.String(), 10, 64)
	switch {
	case kind.Type != "":
		c.scalar(at, kind.Type, v)
	case name == "string_t" && !isString, name == "boolean_t" && !isBool,
		(name == "integer_t" || name == "long_t") && (!isNumber || err != nil):
		c.problem(at, "%v is not of %s", v, name)
	}
	if kind.MaxLen > 0 && len(s) > kind.MaxLen {
		c.problem(at, "longer than %d", kind.MaxLen)
	}
	if kind.Range != nil && (whole < kind.Range[0] || whole > kind.Range[1]) {
		c.problem(at, "%v is not in %v", v, *kind.Range)
	}
	if kind.Regex != "" && !regexp.MustCompile(kind.Regex).MatchString(s) {
		c.problem(at, "%q does not fit %s", s, name)
	}
}
