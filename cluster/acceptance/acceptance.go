// SPDX-License-Identifier: Apache-2.0

// Package acceptance decides which versions of a cluster's AgentProfiles and ProfileBindings are in force.
//
// Each object has the version that its author wants and the version that is in force. A wanted version comes into force when
// all versions in force together still make a set that package profile takes; until then the one before it stays, and the object
// says why. So a fault in one object holds up that object and what depends on it, and never loosens or removes what nodes enforce.
//
// The package is pure: the decision depends on its argument only, and is the same wherever it is made.
package acceptance

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/profile"
)

// Key names an object of the cluster.
type Key struct {
	Kind string // profile.KindProfile or profile.KindBinding
	Name string
}

func (k Key) String() string { return k.Kind + "/" + k.Name }

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.Kind, o.Kind), strings.Compare(k.Name, o.Name))
}

// Version is the spec that an object had in one generation.
type Version struct {
	Generation int64           `json:"generation"` // metadata.generation
	Spec       json.RawMessage `json:"spec"`
}

func (v *Version) same(o *Version) bool {
	return v == o || v != nil && o != nil && bytes.Equal(v.Spec, o.Spec)
}

// Object is an AgentProfile or a ProfileBinding with its two versions.
type Object struct {
	Key
	Created time.Time
	Wanted  *Version // nil: its author wants it gone
	InForce *Version // nil: none is yet
}

// Verdict is what was decided about one object.
type Verdict struct {
	Key
	InForce *Version // nil: nothing of it is in force
	// Refused says why Wanted is not what is in force; nil if it is. It wraps the faults of package profile.
	Refused error
	// Digest is the digest of a profile in force with all that it extends, in hex, as events have it on a node without a floor;
	// empty for bindings.
	Digest string
	// UsedBy are the objects in force that refer to a profile in force, sorted.
	UsedBy []Key
}

// Decide returns a verdict for each object, in the order of objects. Where wanted versions exclude each other, the object that was
// created first goes first. The error is for a set in force that is not valid, which only a change of package profile can cause, and
// that no wanted version mends: then nothing may be changed.
func Decide(objects []Object) ([]Verdict, error) {
	d := decision{force: map[Key]*Version{}}
	var changes []*Object
	for i := range objects {
		o := &objects[i]
		d.force[o.Key] = o.InForce
		if !o.Wanted.same(o.InForce) {
			changes = append(changes, o)
		}
	}
	slices.SortFunc(changes, func(a, b *Object) int {
		return cmp.Or(a.Created.Compare(b.Created), a.compare(b.Key))
	})
	for left := -1; len(changes) != left && len(changes) > 0; { // until a round changes nothing: one change may wait for another
		left = len(changes)
		changes = d.apply(changes)
	}
	return d.verdicts(objects, changes)
}

type decision struct {
	force map[Key]*Version
}

// apply puts as many of the changes into force as it can, and returns the others. It halves what does not go in one piece, so
// few bad objects among many cost few rounds.
func (d *decision) apply(changes []*Object) (refused []*Object) {
	for _, o := range changes {
		d.force[o.Key] = o.Wanted
	}
	if _, err := d.parse(); err == nil {
		return nil
	}
	for _, o := range changes {
		d.force[o.Key] = o.InForce
	}
	if len(changes) == 1 {
		return changes
	}
	half := len(changes) / 2
	return append(d.apply(changes[:half]), d.apply(changes[half:])...)
}

// why returns what speaks against a change that apply refused.
func (d *decision) why(o *Object) error {
	d.force[o.Key] = o.Wanted
	_, err := d.parse()
	d.force[o.Key] = o.InForce
	faults := profile.Errors(err)
	for _, fault := range faults {
		fault.Line, fault.Column = 0, 0 // of the one line that File writes, which nobody sees
	}
	if o.Wanted == nil {
		return fmt.Errorf("it is in use: %w", diagnostic.Join(faults))
	}
	return diagnostic.Join(faults)
}

func (d *decision) verdicts(objects []Object, refused []*Object) ([]Verdict, error) {
	reasons := map[Key]error{}
	for _, o := range refused {
		reasons[o.Key] = d.why(o)
	}
	set, err := d.parse()
	if err != nil {
		return nil, fmt.Errorf("what is in force is not valid: %w", err)
	}
	users := users(set)
	verdicts := make([]Verdict, len(objects))
	for i, o := range objects {
		v := Verdict{Key: o.Key, InForce: d.force[o.Key], Refused: reasons[o.Key]}
		if v.InForce != nil && o.Wanted.same(v.InForce) {
			v.InForce = o.Wanted // of the newest generation
		}
		if o.Kind == profile.KindProfile && v.InForce != nil {
			resolved, err := set.Resolve(o.Name)
			if err != nil {
				return nil, err
			}
			v.Digest, v.UsedBy = resolved.Digest, users[o.Name]
		}
		verdicts[i] = v
	}
	return verdicts, nil
}

// users returns the objects that refer to a profile, by its name.
func users(set *profile.Set) map[string][]Key {
	users := map[string][]Key{}
	for _, p := range set.Profiles() {
		for _, b := range p.Bindings {
			users[p.Name] = append(users[p.Name], Key{profile.KindBinding, b})
		}
		for _, parent := range p.Extends {
			users[parent] = append(users[parent], Key{profile.KindProfile, p.Name})
		}
	}
	for _, keys := range users {
		slices.SortFunc(keys, Key.compare)
	}
	return users
}

func (d *decision) parse() (*profile.Set, error) { return Parse(d.force) }

// Parse makes a set of the versions that are in force together; nil: none of this object is.
func Parse(versions map[Key]*Version) (*profile.Set, error) {
	files := make([]profile.File, 0, len(versions))
	for key, v := range versions {
		if v != nil {
			files = append(files, File(key, v))
		}
	}
	slices.SortFunc(files, func(a, b profile.File) int { return strings.Compare(a.Name, b.Name) })
	return profile.Parse(files)
}

// Digest returns the digest of a set of versions: sha256 over the sorted keys and specs, in hex. A node and the controller that have
// the same versions in force have the same digest, whatever generations they know them by.
func Digest(versions map[Key]*Version) string {
	h := sha256.New()
	for _, key := range slices.SortedFunc(maps.Keys(versions), Key.compare) {
		for _, part := range []string{key.Kind, key.Name, string(versions[key].Spec)} {
			fmt.Fprintf(h, "%d:%s", len(part), part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// File returns a version as the document that package profile reads; it is named like the object.
func File(key Key, v *Version) profile.File {
	data, err := json.Marshal(document{profile.APIVersion, key.Kind, metadata{key.Name}, v.Spec})
	return profile.File{Name: key.String(), Data: data, Err: err}
}

// document is the common form of the objects and of what people write into files.
type document struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   metadata        `json:"metadata"`
	Spec       json.RawMessage `json:"spec"`
}

type metadata struct {
	Name string `json:"name"`
}
