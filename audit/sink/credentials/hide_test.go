// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"errors"
	"strings"
	"testing"
)

func TestHide(t *testing.T) {
	cause := errors.New("who is \x1b[2J\nBearer c0ffee-c0ffee\xff, or c0ffee-c0ffee? " + strings.Repeat("é", 1000))
	err := Hide(cause, []string{"Bearer c0ffee-c0ffee", "is"})
	if text := err.Error(); !strings.HasPrefix(text, "who is  [2J …\ufffd, or …? é") || len(text) > 512 {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	if !errors.Is(err, cause) {
		t.Error("what it wraps is lost")
	}
	if Hide(nil, []string{"c0ffee"}) != nil {
		t.Error("nothing has become an error")
	}
}
