// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestTicksOnADiskThatHangs: however many records come meanwhile, few wait for it.
func TestTicksOnADiskThatHangs(t *testing.T) {
	w := open(t, t.TempDir(), Options{FlushInterval: time.Nanosecond})
	began, goOn := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(began) })
	w.sync = func(f *os.File) error {
		first()
		<-goOn
		return datasync(f)
	}
	before := runtime.NumGoroutine()
	appendAll(t, w, 1)
	<-began
	for range 200 {
		appendAll(t, w, 1)
		time.Sleep(time.Millisecond) // for the timer, if there is one
	}
	if n := runtime.NumGoroutine() - before; n > 10 {
		t.Errorf("%d goroutines wait", n)
	}
	close(goOn)
}
