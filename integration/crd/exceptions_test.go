// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"regexp"
	"strings"
)

// exception is one way in which the API server and a node may differ. Each is needed by a test, or it fails.
type exception struct {
	why   string
	error string // regular expression that a line of the refusal matches
	text  string // regular expression that the document matches
}

// nodeOnly: the API server takes it, and the controller says what is wrong with it a moment later.
var nodeOnly = []exception{
	{"comparing the calls of all rules with those of all others costs more than CEL may", `spec\.seccomp\..* (can never match|is said twice): rule `, ``},
	{"conditions with a mask, a negative number or a number in quotes are not compared with each other", `both cannot hold for argument \d$`, ``},
	{"CEL has no bit operations: of masks it sees numbers and single constants", `has bits outside of mask`, ``},
	{"what a document refers to may come after it, though not a profile that is called pod", `there is no profile "pod"`, ``},
	{"a schema does not see how long a document is", `cannot be read: it is larger than`, ``},
	{"0 and the largest number are known in their usual spellings", `masked_eq without a mask|nothing is (less|greater) than|holds for every value`, ``},
}

// serverOnly: the API server refuses it, and a node takes it from a file.
var serverOnly = []exception{
	{"a schema has no union of fractions and strings: quotes are needed", `must be of type integer,string: "number"$`, ``},
	{"of fractions of binary units the rule takes eighths", `: expected a quantity of `, `\.\d{4,}[KMGTPE]i`},
	{"1<<63-1 is taken only as it stands: Kubernetes reads what is above as that too", `: expected a quantity of `, `9223372036854775\.807k`},
	{"names of objects are DNS names", `^metadata\.name: .*RFC 1123 subdomain`, ``},
	{"labels and annotations have Kubernetes' syntax", `^metadata\.(labels|annotations): `, ``},
	{"kubectl reads y, yes, n, no, on and off as booleans (YAML 1.1): quotes are needed", `must be of type string: "boolean"$`, ``},
	{"the API server's remark that CEL was left out", `some validation rules were not checked`, ``},
}

// fileOnly: kubectl makes something else of a file, before the API server sees it, that both sides take.
var fileOnly = []exception{
	{"anchors, aliases, merges and tags are resolved", `(anchors|aliases|merges|tags)( \(<<\))? are not taken`, ``},
	{"of a key that is given twice the last is taken", `is given twice`, ``},
	{"what has no value is left out", `has no value`, ``},
	{"objects have more metadata, and a status", `: (status|metadata\.\w+): is not a known field`, ``},
	{"numbers are read in all notations of YAML 1.1", `(0x|_|010|\d\.0|1e[39]).* (is not an error|is not a value of this field|is not a number of 64 bits|begins with 0|is no CPU|has the unknown suffix|exponents are not taken)`, ``},
	{"yes, True and their like are booleans", `(yes"?|True) is not a value of this field`, ``},
}

// allowed says that every fault of a refusal is one of the exceptions.
func allowed(exceptions []exception, text []byte, err error, used map[string]bool) bool {
	var needed []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		found := false
		for _, e := range exceptions {
			if regexp.MustCompile(e.error).MatchString(line) && regexp.MustCompile(e.text).Match(text) {
				found, needed = true, append(needed, e.why)
				break
			}
		}
		if !found {
			return false
		}
	}
	for _, why := range needed {
		used[why] = true
	}
	return true
}
