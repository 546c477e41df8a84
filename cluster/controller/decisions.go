// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"metsuke.dev/metsuke/cluster/acceptance"
)

// decisions remembers the last decision: nearly all rounds are about nodes, and find the same documents.
type decisions struct {
	objects  []acceptance.Object
	verdicts []acceptance.Verdict
}

// of is acceptance.Decide. It sorts the objects, and the verdicts are not to be changed.
func (d *decisions) of(objects []acceptance.Object) ([]acceptance.Verdict, error) {
	slices.SortFunc(objects, func(a, b acceptance.Object) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	if d.verdicts != nil && slices.EqualFunc(objects, d.objects, sameObject) {
		return d.verdicts, nil
	}
	verdicts, err := acceptance.Decide(objects)
	if err == nil {
		d.objects, d.verdicts = objects, verdicts
	}
	return verdicts, err
}

func sameObject(a, b acceptance.Object) bool {
	return a.Key == b.Key && a.Created.Equal(b.Created) && sameVersion(a.Wanted, b.Wanted) && sameVersion(a.InForce, b.InForce)
}

func sameVersion(a, b *acceptance.Version) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Generation == b.Generation && bytes.Equal(a.Spec, b.Spec)
}
