// SPDX-License-Identifier: Apache-2.0

// Package admission makes the policies by which the API server refuses what a node would refuse later, so that users learn at
// kubectl apply. They are ValidatingAdmissionPolicies: CEL in the API server, nothing that has to run. No promise rests on them,
// for the node decides by itself: where a policy cannot be evaluated, the object passes.
//
// Policies about pods read one object, a ConfigMap with what [Params] returns, which the controller keeps: docs/adr/0008-one-object-for-admission.md
// says why. The file deploy/helm/metsuke/files/admission.yaml is what [Objects] returns; go test ./cluster/admission -update rewrites it.
package admission

import (
	"fmt"
	"strings"

	"metsuke.dev/metsuke/profile"
)

// ConfigMap is the name of the ConfigMap that the policies about pods read. It is in Metsuke's own namespace.
const ConfigMap = "metsuke-admission"

// The keys of the ConfigMap. A namespace's own name is a key too; neither it nor the name of a profile or binding has an underscore.
const (
	othersKey      = "_others"      // the binding for "*"
	defaultKey     = "_default"     // the profile where no binding names the namespace
	annotationsKey = "_annotations" // Kata's annotations that nodes allow, separated by spaces
	allowedPrefix  = "_allowed_"    // and a binding: the profiles that it allows, separated by separator
	choosePrefix   = "_choose_"     // and a binding: there if pods must choose one
	separator      = ", "
)

// maxParams bounds the ConfigMap, of which etcd takes 1.5 MiB and the API server 1 MiB of data.
const maxParams = 1 << 20

// Nodes is what the configuration of all nodes adds to the documents. Where nodes differ, the policies follow this.
type Nodes struct {
	Defaults           profile.Defaults
	AllowedAnnotations []string // delegate.allowed_annotations of config.toml
}

// Params returns the data of the ConfigMap for the documents that are in force. It is an error if they are too large for one.
func Params(set *profile.Set, nodes Nodes) (map[string]string, error) {
	def := nodes.Defaults.Profile
	if def == "" {
		def = profile.Baseline
	}
	data := map[string]string{defaultKey: def, annotationsKey: strings.Join(nodes.AllowedAnnotations, " ")}
	for _, b := range set.Bindings() {
		for _, ns := range b.Namespaces {
			if ns == "*" {
				ns = othersKey
			}
			data[ns] = b.Name
		}
		data[allowedPrefix+b.Name] = strings.Join(b.Allowed, separator)
		if b.Default == "" && b.Containers == 0 {
			data[choosePrefix+b.Name] = ""
		}
	}
	size := 0
	for k, v := range data {
		size += len(k) + len(v)
	}
	if size > maxParams {
		return nil, fmt.Errorf("the bindings take %d bytes in the ConfigMap %s, which can have %d: name fewer namespaces, and use \"*\" for the others",
			size, ConfigMap, maxParams)
	}
	return data, nil
}
