// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFiles checks how the tree is cut into packages and files.
func TestFiles(t *testing.T) {
	problems, seen, err := checkFiles(os.DirFS(moduleRoot(t)))
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Fatal("no Go file in the module")
	}
	for _, problem := range problems {
		t.Error(problem)
	}
}

// checkFiles parses the Go files of a module, not those of modules nested in it or of testdata.
func checkFiles(tree fs.FS) (problems []string, seen int, err error) {
	docs := map[string][]string{} // by directory: the files with a package comment
	inTests := map[string]bool{}  // directories with test files only
	err = fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == "." {
				return nil
			}
			_, nested := fs.Stat(tree, path+"/go.mod")
			if strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == "vendor" || nested == nil {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		data, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ParseComments)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s does not parse: %v", path, err))
			return nil
		}
		seen++
		dir, test := filepath.Dir(path), strings.HasSuffix(path, "_test.go")
		if _, known := inTests[dir]; !known {
			inTests[dir] = true
		}
		inTests[dir] = inTests[dir] && test
		if file.Doc != nil && !strings.HasSuffix(file.Name.Name, "_test") {
			docs[dir] = append(docs[dir], d.Name())
		}
		problems = append(problems, checkFile(path, data, file)...)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	for dir, onlyTests := range inTests {
		if n := len(docs[dir]); n > 1 || n == 0 && !onlyTests {
			problems = append(problems, fmt.Sprintf("package %s has %d package comments %v\n\twhy not: one says what the package is for, none or two do not\n\tdo:      write it above one package clause, in doc.go or the main file, with a blank line after the SPDX line",
				dir, n, docs[dir]))
		}
	}
	slices.Sort(problems)
	return problems, seen, nil
}

func checkFile(path string, data []byte, file *ast.File) (problems []string) {
	bad := func(what, why, do string) {
		problems = append(problems, fmt.Sprintf("%s %s\n\twhy not: %s\n\tdo:      %s", path, what, why, do))
	}
	if !bytes.HasPrefix(data, []byte("// SPDX-License-Identifier: Apache-2.0\n")) && !ast.IsGenerated(file) {
		bad("does not begin with the SPDX line", "the licence of each file is to be read by machines", "begin it with // SPDX-License-Identifier: Apache-2.0")
	}
	if name := strings.TrimSuffix(file.Name.Name, "_test"); slices.Contains(packageNames, name) {
		bad("is in package "+name, "the name says nothing, so the package has no bounds", "name it by the noun that it is about, or put the code where it is used")
	}
	if n := bytes.Count(data, []byte("\n")); n >= maxLines && !ast.IsGenerated(file) {
		bad(fmt.Sprintf("has %d lines", n), fmt.Sprintf("from %d on a file has more than one subject", maxLines), "cut it by subject")
	}
	for _, imp := range file.Imports {
		if imp.Path.Value == `"unsafe"` && !strings.HasSuffix(strings.TrimSuffix(path, "_test.go"), "_unsafe") && !strings.HasSuffix(path, "_unsafe.go") {
			bad("imports unsafe", "who reviews memory safety looks at *_unsafe.go only", "move the few lines to such a file, behind a safe function")
		}
	}
	if file.Doc != nil && strings.HasPrefix(file.Doc.Text(), "SPDX") {
		bad("has the SPDX line as its package comment", "documentation shows it", "put a blank line after it")
	}
	return problems
}
