// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"metsuke.dev/metsuke/internal/diagnostic"
)

//go:embed builtin/*.yaml
var builtins embed.FS

// builtinRoot stands for the directory of the built-in documents in messages.
const builtinRoot = "built-in"

// Set is every document of a node. It is immutable.
type Set struct {
	profiles map[string]*agentProfile
	bindings []*binding
	byNS     map[string]*binding // by namespace or "*"
}

// File is one file of documents.
type File struct {
	Name string // as messages show it
	Data []byte
	Err  error // why it could not be read; it counts as a fault of the file
}

// Load reads every *.yaml and *.yml file under the root of fsys (nil: none) as [Files] finds them, and parses them with
// [Parse]. root is what fsys is called in messages, usually the directory's path.
func Load(fsys fs.FS, root string) (*Set, error) {
	var files []File
	if fsys != nil {
		var err error
		if files, err = Files(fsys, root); err != nil {
			return nil, err
		}
	}
	return Parse(files)
}

// Files reads every *.yaml and *.yml file under the root of fsys, in the order of their names. Names that begin with a
// point are left out, as are the copies in a mounted ConfigMap. What is not a regular file is not opened.
func Files(fsys fs.FS, root string) ([]File, error) {
	names, err := list(fsys)
	if err != nil {
		return nil, fmt.Errorf("read profiles in %s: %w", root, err)
	}
	files := make([]File, 0, len(names))
	total := 0
	for _, name := range names {
		f := File{Name: path.Join(root, name)}
		if total <= maxTotalSize {
			f.Data, f.Err = readFile(fsys, name)
			total += len(f.Data)
		} else {
			f.Err = errTotal
		}
		files = append(files, f)
	}
	return files, nil
}

var errTotal = fmt.Errorf("all files together are larger than %d bytes", maxTotalSize)

// Parse makes a set of the built-in documents and those of files. The error joins all faults of all files, each an
// *[Error] (see [Errors]).
func Parse(files []File) (*Set, error) {
	builtin, err := builtinProfiles()
	if err != nil {
		return nil, err
	}
	s := &Set{profiles: maps.Clone(builtin), byNS: map[string]*binding{}}
	r := &reader{}
	s.read(r, files, false)
	s.link(r)
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// builtinProfiles are the built-in documents, by name. Nobody changes them, so a process, which may make many sets, reads them once.
var builtinProfiles = sync.OnceValues(func() (map[string]*agentProfile, error) {
	own, err := fs.Sub(builtins, "builtin")
	if err != nil {
		return nil, err
	}
	files, err := Files(own, builtinRoot)
	if err != nil {
		return nil, err
	}
	s, r := &Set{profiles: map[string]*agentProfile{}}, &reader{}
	s.read(r, files, true)
	return s.profiles, r.err()
})

// Errors returns the single faults of an error of this package, in the order of their places.
func Errors(err error) []*Error { return diagnostic.All(err) }

// read adds the documents of files.
func (s *Set) read(r *reader, files []File, builtin bool) {
	total, documents := 0, 0
	for _, f := range files {
		r.file = f.Name
		total += len(f.Data)
		switch {
		case f.Err != nil:
			r.add(&Error{File: f.Name, Msg: "cannot be read: " + printable(f.Err.Error())})
			continue
		case len(f.Data) > maxFileSize:
			r.add(&Error{File: f.Name, Msg: fmt.Sprintf("cannot be read: it is larger than %d bytes", maxFileSize)})
			continue
		case total > maxTotalSize:
			r.add(&Error{File: f.Name, Msg: "cannot be read: " + errTotal.Error()})
			return
		}
		for _, root := range r.documents(f.Data) {
			if documents++; documents > maxDocuments {
				r.fail(root, "", fmt.Sprintf("is one document more than the %d that are taken", maxDocuments), "")
				return
			}
			p, b := r.document(root, builtin)
			if p != nil {
				s.addProfile(r, p)
			}
			if b != nil {
				s.bindings = append(s.bindings, b)
			}
		}
	}
}

// list returns the files to read, sorted.
func list(fsys fs.FS) (files []string, err error) {
	entries := 0
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entries++; entries > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		hidden := name != "." && strings.HasPrefix(d.Name(), ".")
		ext := path.Ext(name)
		switch {
		case d.IsDir() && hidden:
			return fs.SkipDir
		case d.IsDir() || hidden || ext != ".yaml" && ext != ".yml":
			return nil
		case len(files) == maxFiles:
			return fmt.Errorf("more than %d files", maxFiles)
		}
		files = append(files, name)
		return nil
	})
	return files, err
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	// Before it is opened: opening a FIFO would wait for a writer.
	st, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (s *Set) addProfile(r *reader, p *agentProfile) {
	first, twice := s.profiles[p.name]
	switch {
	case p.name == "":
	case twice && first.builtin:
		r.add(p.fault("metadata.name", diagnostic.Quote(p.name)+" is built in", "expected another name; to build on it write extends: ["+p.name+"]"))
	case twice:
		r.add(p.fault("metadata.name", diagnostic.Quote(p.name)+" is the name of two profiles", "the first is "+first.source("metadata.name").String()))
	default:
		s.profiles[p.name] = p
	}
}

// link checks what documents say about each other.
func (s *Set) link(r *reader) {
	names := map[string]*binding{}
	for _, b := range s.bindings {
		if first, twice := names[b.name]; twice && b.name != "" {
			r.add(b.fault("metadata.name", diagnostic.Quote(b.name)+" is the name of two bindings", "the first is "+first.source("metadata.name").String()))
		}
		names[b.name] = b
		for _, ns := range b.namespaces {
			if first, twice := s.byNS[ns]; twice {
				r.add(b.fault("spec.namespaces."+ns, fmt.Sprintf("%s already has the binding %s", namespaceWords(ns), diagnostic.Quote(first.name)),
					"expected one binding for it; the other is "+first.source("spec.namespaces."+ns).String()))
				continue
			}
			s.byNS[ns] = b
		}
		s.known(r, &b.document, "spec.default", b.fallback)
		for _, name := range b.allowed {
			s.known(r, &b.document, "spec.allowed."+name, name)
		}
		for i, c := range b.containers {
			s.known(r, &b.document, fmt.Sprintf("spec.containers[%d].profile", i), c.profile)
		}
	}
	for _, p := range s.sorted() {
		for _, name := range p.extends {
			field := "spec.extends." + name
			if s.known(r, &p.document, field, name) && s.profiles[name].passthrough {
				r.add(p.fault(field, `"passthrough" cannot be extended: there is nothing in it`, "expected baseline, or no extends"))
			}
		}
		if p.replace && len(p.extends) == 0 {
			r.add(p.fault("spec.replace", "there is nothing to replace, since the profile extends none", "remove it, or add extends"))
		}
	}
	if s.cycles(r); len(r.errs) == 0 {
		s.loosening(r)
	}
}

func (s *Set) known(r *reader, d *document, field, name string) bool {
	if _, ok := s.profiles[name]; ok || name == "" {
		return ok
	}
	hint := "expected the name of a profile; metsuke profile list shows them"
	if near := diagnostic.Nearest(name, s.Names()); near != "" {
		hint = "did you mean " + near + "?"
	}
	r.add(d.fault(field, "there is no profile "+diagnostic.Quote(name), hint))
	return false
}

// Names returns the names of all profiles, sorted.
func (s *Set) Names() []string {
	var names []string
	for name := range s.profiles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// sorted returns the profiles in the order in which they were read.
func (s *Set) sorted() []*agentProfile {
	out := make([]*agentProfile, 0, len(s.profiles))
	for _, p := range s.profiles {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *agentProfile) int {
		return strings.Compare(a.file+"\x00"+a.name, b.file+"\x00"+b.name)
	})
	return out
}

func namespaceWords(ns string) string {
	if ns == "*" {
		return `"*" (every other namespace)`
	}
	return "namespace " + diagnostic.Quote(ns)
}
