// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Edits of the main file are of its text: what is ours in it carries a mark, so that taking it out leaves every other byte as it
// is, whoever wrote it and when.

// importMark ends the line of imports that is ours as a whole.
const importMark = " # added by `metsuke node install`"

// addImport adds a pattern to the imports: to the array if there is one, or else as a line of its own before that of the
// version (keys after the first table would belong to that table).
func (m *mainFile) addImport(pattern string) string {
	at := m.array[0]
	if m.array[1] == 0 {
		at = m.versionAt
		return m.text[:at] + "imports = [" + quote(pattern) + "]" + importMark + "\n" + m.text[at:]
	}
	return m.text[:at+1] + quote(pattern) + ", " + m.text[at+1:]
}

// stripImport takes a pattern out that addImport has added.
func (c *Containerd) stripImport(text, pattern string) string {
	line := "imports = [" + quote(pattern) + "]" + importMark + "\n"
	if i := strings.Index(text, line); i == 0 || i > 0 && text[i-1] == '\n' {
		return text[:i] + text[i+len(line):]
	}
	m, err := c.parse(text)
	if err != nil {
		return text // what does not parse is the operator's, and is complained about where it matters
	}
	array := text[m.array[0]:m.array[1]]
	for _, form := range []string{quote(pattern) + ", ", ", " + quote(pattern), quote(pattern) + ","} { // ours first, then as others reorder it
		if less := strings.Replace(array, form, "", 1); less != array {
			return text[:m.array[0]] + less + text[m.array[1]:]
		}
	}
	return text
}

// The marks of a block of tables. The sum is over the lines between, so that a change by somebody else shows; "joined" says that
// the file did not end in a newline.
const (
	blockBegin = "# metsuke:begin"
	blockEnd   = "# metsuke:end"
)

var block = regexp.MustCompile(`(?s)# metsuke:begin (joined )?sha256:([0-9a-f]{64}), taken out by .metsuke node uninstall.\n(.*?)# metsuke:end\n`)

// addBlock puts tables at the end of a text.
func addBlock(text, tables string) string {
	joined := ""
	if text != "" && !strings.HasSuffix(text, "\n") {
		text, joined = text+"\n", "joined "
	}
	return text + blockBegin + " " + joined + "sha256:" + sum(tables) + ", taken out by `metsuke node uninstall`\n" + tables + blockEnd + "\n"
}

// stripBlock takes the block out that addBlock has added, and returns its tables. A block that somebody has changed stays, and is an
// error.
func stripBlock(text string) (rest, tables string, err error) {
	at := block.FindStringSubmatchIndex(text)
	if at == nil {
		if strings.Contains(text, blockBegin) || strings.Contains(text, blockEnd) {
			return text, "", errChanged
		}
		return text, "", nil
	}
	tables = text[at[6]:at[7]]
	if sum(tables) != text[at[4]:at[5]] {
		return text, "", errChanged
	}
	before, after := text[:at[0]], text[at[1]:]
	if at[2] >= 0 && after == "" { // what follows now needs the newline
		before = strings.TrimSuffix(before, "\n")
	}
	return before + after, tables, nil
}

var errChanged = fmt.Errorf("what is between %q and %q was changed by somebody else; move it out of these lines, and remove them", blockBegin, blockEnd)

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// Seal makes a file of its own of a text: a first line says whose it is and has the sum of the rest.
func Seal(text string) string {
	return "# Written by `metsuke node install`. What others change it leaves alone. sha256:" + sum(text) + "\n" + text
}

// Sealed reports whether a file is one that Seal made, and is unchanged.
func Sealed(file string) bool {
	_, text, ok := strings.Cut(file, "\n")
	return ok && file == Seal(text)
}
