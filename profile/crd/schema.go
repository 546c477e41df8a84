// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/profile/form"
)

// Schema is a structural schema, as far as Metsuke uses it.
type Schema struct {
	Description   string             `yaml:"description,omitempty"`
	Type          string             `yaml:"type,omitempty"`
	Format        string             `yaml:"format,omitempty"`
	IntOrString   bool               `yaml:"x-kubernetes-int-or-string,omitempty"`
	Preserve      bool               `yaml:"x-kubernetes-preserve-unknown-fields,omitempty"`
	Enum          []any              `yaml:"enum,omitempty"`
	Pattern       string             `yaml:"pattern,omitempty"`
	Minimum       *int64             `yaml:"minimum,omitempty"`
	Maximum       *int64             `yaml:"maximum,omitempty"`
	MinLength     int                `yaml:"minLength,omitempty"`
	MaxLength     int                `yaml:"maxLength,omitempty"`
	MinItems      int                `yaml:"minItems,omitempty"`
	MaxItems      int                `yaml:"maxItems,omitempty"`
	ListType      string             `yaml:"x-kubernetes-list-type,omitempty"`
	ListMapKeys   []string           `yaml:"x-kubernetes-list-map-keys,omitempty"`
	MinProperties int                `yaml:"minProperties,omitempty"`
	MaxProperties int                `yaml:"maxProperties,omitempty"`
	Required      []string           `yaml:"required,omitempty"`
	AllOf         []*Schema          `yaml:"allOf,omitempty"`
	AnyOf         []*Schema          `yaml:"anyOf,omitempty"`
	Not           *Schema            `yaml:"not,omitempty"`
	Validations   []Rule             `yaml:"x-kubernetes-validations,omitempty"`
	Properties    map[string]*Schema `yaml:"properties,omitempty"`
	Items         *Schema            `yaml:"items,omitempty"`
	Additional    *Schema            `yaml:"additionalProperties,omitempty"`
}

// Rule is a rule of CEL, and what the user is told where it does not hold.
type Rule struct {
	Rule              string `yaml:"rule"`
	Message           string `yaml:"message"`
	MessageExpression string `yaml:"messageExpression,omitempty"` // what is shown instead, if it can be evaluated
	FieldPath         string `yaml:"fieldPath,omitempty"`
}

// at returns the schema of a field by its path, as form.Field.At does.
func (s *Schema) at(path string) *Schema {
	name, rest, deeper := strings.Cut(path, ".")
	for s.Items != nil || s.Additional != nil {
		if s.Items != nil {
			s = s.Items
		} else {
			s = s.Additional
		}
	}
	field := s.Properties[name]
	if deeper {
		return field.at(rest)
	}
	return field
}

// schemaOf returns what a form says, without rules of CEL.
func schemaOf(f *form.Field) *Schema {
	s := &Schema{Description: describe(f)}
	switch f.Kind {
	case form.Object:
		s.Type, s.MinProperties, s.Properties = "object", f.Least, map[string]*Schema{}
		for _, field := range f.Fields {
			s.Properties[field.Name] = schemaOf(field)
			if field.Required {
				s.Required = append(s.Required, field.Name)
			}
		}
	case form.Mapping:
		s.Type, s.MaxProperties, s.Additional = "object", f.Most, schemaOf(f.Entry)
	case form.List:
		s.Type, s.MinItems, s.MaxItems, s.Items = "array", f.Least, f.Most, schemaOf(f.Entry)
		s.ListType = "atomic"
		if f.Unique {
			s.ListType = "set"
		}
	case form.Bool:
		s.Type = "boolean"
	case form.BoolOrInherit:
		// A union that structural schemas have no type for. The words bound it; rules of CEL do not see it.
		s.Preserve, s.Enum = true, append([]any{true}, anys(f.WordNames())...)
	case form.Argument:
		s.Type, s.Minimum, s.Maximum = "integer", pointer(0), pointer(5)
	case form.Syscall:
		s.Type, s.MaxLength, s.Validations = "string", maxSyscall, []Rule{syscallRule()}
	case form.Text:
		s.Type, s.MinLength, s.MaxLength, s.Pattern, s.Enum = "string", 1, f.Most, f.Pattern, anys(f.WordNames())
	case form.Duration:
		s.Type, s.MaxLength = "string", f.Most
	default:
		scalar(s, f)
	}
	return s
}

// scalar fills in the kinds that are written with or without quotes. They are checked by rules of CEL, which have a message.
func scalar(s *Schema, f *form.Field) {
	s.IntOrString, s.MaxLength = true, f.Most
	switch f.Kind {
	case form.Number:
		s.Validations = []Rule{numberRule(f)}
	case form.Errno:
		s.Validations = []Rule{errnoRule()}
	case form.CPUs:
		s.Validations = []Rule{quantityRule(f, 3)}
	case form.Bytes, form.Count:
		s.Validations = []Rule{quantityRule(f, 0)}
	case form.CPUList:
		s.Validations = []Rule{cpuListRule()}
	default:
		panic(fmt.Sprintf("crd: no schema for fields of kind %d", f.Kind))
	}
}

// describe writes what kubectl explain shows.
func describe(f *form.Field) string {
	var b strings.Builder
	first, size := utf8.DecodeRuneInString(f.Doc)
	b.WriteString(string(unicode.ToUpper(first)) + f.Doc[size:])
	switch f.Kind {
	case form.List, form.Mapping, form.Object:
	case form.Text:
		if f.Pattern != "" || len(f.Words) > 0 {
			break
		}
		fallthrough
	default:
		b.WriteString(" (" + f.Takes() + ")")
	}
	b.WriteString(".")
	for _, w := range f.Words {
		b.WriteString("\n- " + w.Name + ": " + w.Doc)
	}
	return b.String()
}

func syscalls() (names []string) {
	for _, row := range profile.Syscalls().Rows {
		names = append(names, row[0])
	}
	return slices.Clip(names)
}

func anys(words []string) []any {
	if len(words) == 0 {
		return nil
	}
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}

func pointer(n int64) *int64 { return &n }
