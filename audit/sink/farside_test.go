// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"errors"
	"strings"
	"testing"
)

func TestFarSide(t *testing.T) {
	cause := errors.New("a\x1b[2J\nb\xff" + strings.Repeat("é", 1000))
	err := FarSide(cause)
	if text := err.Error(); !strings.HasPrefix(text, "a [2J b\ufffdé") || !strings.HasSuffix(text, "é…") || len(text) > 310 {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	if !errors.Is(err, cause) {
		t.Error("does not wrap its cause")
	}
	if text := FarSide(errors.New("plain")).Error(); text != "plain" {
		t.Errorf("%q", text)
	}
}
