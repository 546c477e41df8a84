// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"fmt"
	"strings"
)

// Policy is what the stand-in refuses, for tests of faults: the three effects of a policy that was generated for a pod
// (src/tools/genpolicy/rules.rego) that one sees first. The zero value allows all.
type Policy struct {
	DenyCreate  bool // CreateContainer fails with PERMISSION_DENIED, but for the sandbox's own container
	DenyExec    bool // ExecProcess fails with PERMISSION_DENIED
	BlankOutput bool // ReadStdout and ReadStderr succeed and their data are cut out
}

// ParsePolicy reads a list like "deny-exec,blank-output". An unknown word is an error.
func ParsePolicy(list string) (Policy, error) {
	var p Policy
	for word := range strings.SplitSeq(list, ",") {
		switch word {
		case "":
		case "deny-create":
			p.DenyCreate = true
		case "deny-exec":
			p.DenyExec = true
		case "blank-output":
			p.BlankOutput = true
		default:
			return Policy{}, fmt.Errorf("policy %q is unknown (known: deny-create, deny-exec, blank-output)", word)
		}
	}
	return p, nil
}
