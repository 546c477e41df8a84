// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// An object is one JSON object of which we touch a few members and keep the rest as it came: unknown fields,
// the spelling of numbers, the order.
//
// Names are matched exactly. Go's encoding/json, and so runc, matches them without case and lets the last one
// win, so an object in which two names differ in case only, or which has ours in another case, could mean one
// thing to us and another to the delegate: it is refused.
type object struct {
	path    string // for errors: "linux.resources"
	members []member
}

type member struct {
	name string
	raw  json.RawMessage
	obj  *object // raw is stale once this is set
}

func parseObject(path string, raw []byte) (*object, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%s: want a JSON object: %w", path, orShape(err))
	}
	o := &object{path: path}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		m := member{name: name.(string)} // the decoder takes nothing else as a name
		if err := dec.Decode(&m.raw); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", path, m.name, err)
		}
		o.members = append(o.members, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := dec.Token(); err == nil {
		return nil, fmt.Errorf("%s: there is more after the object", path)
	}
	seen := make(map[string]string, len(o.members))
	for _, m := range o.members {
		key := strings.Map(fold, m.name)
		if other, ok := seen[key]; ok {
			return nil, fmt.Errorf("%s: has both %q and %q: readers disagree on which one counts", path, other, m.name)
		}
		seen[key] = m.name
	}
	return o, nil
}

// fold returns the least of the runes that differ from r in case only, by the rule of strings.EqualFold, which is
// encoding/json's: "ſ" is an s and the Kelvin sign a k.
func fold(r rune) rune {
	least := r
	for n := unicode.SimpleFold(r); n != r; n = unicode.SimpleFold(n) {
		least = min(least, n)
	}
	return least
}

func orShape(err error) error {
	if err == nil {
		return errors.New("it is another value")
	}
	return err
}

// find returns the member of that name; nil if it is absent or null, which mean the same to every reader.
func (o *object) find(name string) (*member, error) {
	for i := range o.members {
		m := &o.members[i]
		if m.name == name {
			if m.obj == nil && string(m.raw) == "null" {
				return nil, nil
			}
			return m, nil
		}
		if strings.EqualFold(m.name, name) {
			return nil, fmt.Errorf("%s: %q is spelled %q: readers disagree on whether it counts", o.path, name, m.name)
		}
	}
	return nil, nil
}

// get decodes a member into v and reports whether it is there.
func (o *object) get(name string, v any) (bool, error) {
	m, err := o.find(name)
	if m == nil || err != nil {
		return false, err
	}
	raw := m.raw
	if m.obj != nil {
		raw = m.obj.append(nil)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("%s.%s: %w", o.path, name, err)
	}
	return true, nil
}

// child returns the object in a member; nil if it is absent. What is done to it shows in o.
func (o *object) child(name string) (*object, error) {
	m, err := o.find(name)
	if m == nil || err != nil {
		return nil, err
	}
	if m.obj == nil {
		if m.obj, err = parseObject(o.path+"."+name, m.raw); err != nil {
			return nil, err
		}
	}
	return m.obj, nil
}

// ensure is child, but makes the object where it is absent.
func (o *object) ensure(name string) (*object, error) {
	c, err := o.child(name)
	if c != nil || err != nil {
		return c, err
	}
	if err := o.setRaw(name, json.RawMessage("{}")); err != nil {
		return nil, err
	}
	return o.child(name)
}

func (o *object) set(name string, v any) error {
	raw, err := marshal(v)
	if err != nil {
		return fmt.Errorf("%s.%s: %w", o.path, name, err)
	}
	return o.setRaw(name, raw)
}

func (o *object) setRaw(name string, raw json.RawMessage) error {
	for i := range o.members {
		if o.members[i].name == name {
			o.members[i] = member{name: name, raw: raw}
			return nil
		}
		if strings.EqualFold(o.members[i].name, name) {
			return fmt.Errorf("%s: %q is spelled %q: readers disagree on whether it counts", o.path, name, o.members[i].name)
		}
	}
	o.members = append(o.members, member{name: name, raw: raw})
	return nil
}

func (o *object) remove(name string) {
	for i := range o.members {
		if o.members[i].name == name {
			o.members = append(o.members[:i], o.members[i+1:]...)
			return
		}
	}
}

// append writes the object as JSON.
func (o *object) append(dst []byte) []byte {
	dst = append(dst, '{')
	for i, m := range o.members {
		if i > 0 {
			dst = append(dst, ',')
		}
		name, _ := marshal(m.name) // a string always can be
		dst = append(append(dst, name...), ':')
		if m.obj != nil {
			dst = m.obj.append(dst)
		} else {
			dst = append(dst, m.raw...)
		}
	}
	return append(dst, '}')
}

// marshal is json.Marshal without the escapes for HTML.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// maxDepth bounds nesting; a config.json has less than ten levels.
const maxDepth = 200

// checkNames refuses a document in which some object has one name twice: the readers of a config.json (Go, Rust,
// C) do not agree on which of them counts.
func checkNames(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	type level struct {
		names map[string]bool // nil in an array
		value bool            // the next token is a value, not a name
	}
	var stack []level
	for {
		t, err := dec.Token()
		if err != nil {
			if len(stack) == 0 && err == io.EOF {
				return nil
			}
			return err
		}
		if len(stack) > maxDepth {
			return fmt.Errorf("objects and lists are nested more than %d deep", maxDepth)
		}
		top := len(stack) - 1
		if name, ok := t.(string); ok && top >= 0 && stack[top].names != nil && !stack[top].value {
			if stack[top].names[name] {
				return fmt.Errorf("%q is there twice in one object", name)
			}
			stack[top].names[name] = true
			stack[top].value = true
			continue
		}
		if top >= 0 {
			stack[top].value = false
		}
		switch t {
		case json.Delim('{'):
			stack = append(stack, level{names: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
	}
}
