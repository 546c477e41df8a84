// SPDX-License-Identifier: Apache-2.0

package record

import "metsuke.dev/metsuke/audit"

// Text is a string that JSON has in the form of records: exact, whatever bytes it holds, and safe to print to a terminal.
type Text string

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) { return audit.AppendString(nil, string(t)), nil }
