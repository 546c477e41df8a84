// SPDX-License-Identifier: Apache-2.0

package stream

import "os"

// TestID is the identity of the streams of the tests.
var TestID = testID

// AtEachStep has step called after each step of signing a stream, and of going on in a new segment.
func AtEachStep(o Options, step func(string)) Options {
	o.step = step
	return o
}

// Tick signs what came since the last head, as the timer does.
func (w *Writer) Tick() { w.notary.tick() }

// FailHead has the next writes of heads fail, or succeed again.
func (w *Writer) FailHead(fail bool) error {
	w.notary.mu.Lock()
	defer w.notary.mu.Unlock()
	flags := os.O_RDWR
	if fail {
		flags = os.O_RDONLY
	}
	head, err := openAt(w.dir, "head", flags)
	if err == nil {
		w.notary.head.Close()
		w.notary.head = head
	}
	return err
}
