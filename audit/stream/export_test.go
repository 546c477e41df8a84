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

// Tick brings to the disk what came since the last flush, and signs it, as the timer does.
func (w *Writer) Tick() { w.tick() }

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

// AtBoot has the kernel's boot be another one.
func AtBoot(o Options, id string) Options {
	o.bootID = id
	return o
}

// CloseAllAbandonedAt is CloseAllAbandoned in another boot.
func CloseAllAbandonedAt(root string, o Options) ([]string, error) {
	o.LockWait = -1
	return closeAllAbandoned(root, o)
}

// CloseAbandonedAt is closeAbandoned in another boot.
func CloseAbandonedAt(dir string, o Options) (bool, error) {
	o.LockWait = -1
	return closeAbandoned(dir, o)
}
