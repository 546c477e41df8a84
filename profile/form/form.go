// SPDX-License-Identifier: Apache-2.0

// Package form says what the fields of a document take. The forms themselves are in package profile, whose decoder, reference and
// CustomResourceDefinitions are made from them.
package form

import "strings"

// Kind is what a field takes.
type Kind int

// The kinds of fields. What is said of a Mapping's names is one of the last two.
const (
	Object        Kind = iota // a mapping with the fields of Field.Fields
	Mapping                   // a mapping from names to entries of one form
	List                      // a list of entries of one form
	Text                      // a string that is not empty
	Bool                      // true or false
	BoolOrInherit             // true, or the word inherit
	Syscall                   // the name of a system call
	Argument                  // the number of an argument
	Number                    // of 64 bits, with or without quotes, or names of constants joined by |
	Errno                     // the name or the number of an error
	Duration                  // as Go writes it
	CPUs                      // a quantity of CPUs, in thousandths
	Bytes                     // a quantity of bytes
	Count                     // a quantity of whole things
	CPUList                   // CPUs and ranges of CPUs
	Device                    // a path under /dev, or major:minor
	PageSize                  // a size of huge pages
)

// Field is the form of one field, of an entry of a list or mapping, or of a document's spec. It is not changed once it is made.
type Field struct {
	Name     string // empty for entries
	Doc      string // for people: a phrase without a full stop
	Kind     Kind
	Required bool

	Fields []*Field // of an Object, in the order in which people write them
	Entry  *Field   // of a List or Mapping
	Names  Kind     // of a Mapping: Device or PageSize
	Unique bool     // of a List: no entry occurs twice
	Least  int      // entries of a List, fields of an Object
	Most   int      // entries of a List or Mapping, characters of what is written as a string; 0: Words bounds it

	Min, Max int64 // of a quantity, in its unit; Max 0: anything

	Words   []Word // of a Text: the only values. Empty: any
	Pattern string // of a Text: the regular expression (RE2) that every value matches. Empty: any
}

// Word is one value of a field.
type Word struct{ Name, Doc string }

// At returns the form of a field of an Object by its path, such as "seccomp.deny.args"; the entries of lists and mappings are
// stepped into. It panics on a path that does not exist, which is a fault of the program.
func (f *Field) At(path string) *Field {
	name, rest, deeper := strings.Cut(path, ".")
	for f.Entry != nil {
		f = f.Entry
	}
	for _, field := range f.Fields {
		switch {
		case field.Name == name && deeper:
			return field.At(rest)
		case field.Name == name:
			return field
		}
	}
	panic("form: there is no field " + path)
}

// Walk calls visit for the form and all in it, each with its path: "spec.seccomp.deny[].errno", "spec.limits.io.*.readBPS".
func (f *Field) Walk(path string, visit func(path string, f *Field)) {
	visit(path, f)
	for _, field := range f.Fields {
		field.Walk(path+"."+field.Name, visit)
	}
	switch f.Kind {
	case List:
		f.Entry.Walk(path+"[]", visit)
	case Mapping:
		f.Entry.Walk(path+".*", visit)
	}
}

// WordNames returns the names of the words, in their order.
func (f *Field) WordNames() []string {
	names := make([]string, len(f.Words))
	for i, w := range f.Words {
		names[i] = w.Name
	}
	return names
}
