// SPDX-License-Identifier: Apache-2.0

package form

import (
	"fmt"
	"strings"
)

// kinds says in words what a field of each kind takes. Those of Object and Text say it by their own bounds.
var kinds = map[Kind]string{
	Object: "fields", Text: "text", Bool: "true or false", BoolOrInherit: "true or inherit", Syscall: "name of a system call", Argument: "0 to 5",
	Number: "number, or constants joined by |", Errno: "name or number of an error", Duration: "duration such as 10s",
	CPUs: "quantity of CPUs, such as 2 or 500m", Bytes: "quantity of bytes, such as 1800Mi", Count: "quantity of whole things, such as 256",
	CPUList: "list of CPUs such as 0-3,7", Device: "device", PageSize: "page size",
}

// Takes says in words what the field takes.
func (f *Field) Takes() string {
	switch {
	case f.Kind == List:
		each := ""
		if f.Unique {
			each = ", each once"
		}
		return fmt.Sprintf("list, at most %d%s", f.Most, each)
	case f.Kind == Mapping:
		return fmt.Sprintf("by %s, at most %d", kinds[f.Names], f.Most)
	case f.Kind == Text && len(f.Words) > 0 && len(f.Words) <= 2:
		return strings.Join(f.WordNames(), " or ")
	case f.Kind == Text && len(f.Words) > 0:
		return "a word of the vocabulary"
	case f.Kind == Text:
		return fmt.Sprintf("text, at most %d characters", f.Most)
	}
	return kinds[f.Kind]
}
