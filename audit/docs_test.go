// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"fmt"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/internal/goldentest"
)

const reference = "../docs/events.md"

// TestReference holds the event reference's tables to the code's; -update writes them.
func TestReference(t *testing.T) {
	for name, table := range map[string]string{
		"common":   fieldTable(append(audit.CommonFields(), audit.ChainField())),
		"kinds":    termTable("kind", audit.Kinds()),
		"fields":   kindTables(),
		"verdicts": termTable("verdict", audit.Verdicts()),
		"evidence": termTable("evidence", audit.Evidences()),
		"losses":   termTable("reason", audit.LossReasons()),
		"causes":   termTable("cause", audit.ExitCauses()),
	} {
		goldentest.Section(t, reference, name, table)
	}
}

func termTable(head string, terms []audit.Term) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | meaning |\n|---|---|\n", head)
	for _, term := range terms {
		fmt.Fprintf(&b, "| `%s` | %s |\n", term.Name, term.Doc)
	}
	return b.String()
}

func fieldTable(fields []audit.Field) string {
	var b strings.Builder
	b.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for _, f := range fields {
		optional := ""
		if f.Optional {
			optional = ", optional"
		}
		fmt.Fprintf(&b, "| `%s` | %s%s | %s |\n", f.Name, f.Type, optional, f.Doc)
	}
	return b.String()
}

func kindTables() string {
	var b strings.Builder
	for i, kind := range audit.Kinds() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "### Fields of kind `%s`\n", kind.Name)
		b.WriteString(fieldTable(audit.Fields(audit.Kind(kind.Name))))
		switch audit.Kind(kind.Name) {
		case audit.KindSyscall:
			b.WriteString("\nEach of `args`:\n\n" + fieldTable(audit.ArgFields()))
		case audit.KindStart:
			b.WriteString("\nEach of `limits`:\n\n" + fieldTable(audit.LimitFields()))
		case audit.KindTiming:
			b.WriteString("\nEach of `laps`:\n\n" + fieldTable(audit.LapFields()))
		}
	}
	return b.String()
}
