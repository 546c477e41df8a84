// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"cmp"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// first is what a segment may get before the budget is asked: each stream has so much, whatever the others take. A segment is not
	// begun for less either.
	first = 64 << 10
	// block is what a file or a directory takes at least, in bytes; sizes are rounded up to it.
	block = 4 << 10
	// lookAgain is the least time between two looks at the disk, and lookShare how many times longer than the last look it is.
	lookAgain, lookShare = 500 * time.Millisecond, 10
)

// Budget bounds what the streams of a pod, and all of a node, take on the disk. All Writers of a pod share one. Before a segment gets more
// than its first 64 KiB, all that it may get is taken from the budget: so the streams of a pod whose Writers share a Budget never take more
// than that and 64 KiB for each, however many there are. The node's budget is shared with other processes: it can be exceeded by the segments that
// have begun, one for each stream.
//
// What there is on the disk is looked at in the background. Whoever looks stops when it is too much, and each file counts for 4 KiB at least, so
// the number of files is bounded by the budget as well. All methods are safe for concurrent use; nil is a Budget without bounds.
type Budget struct {
	root string
	pod  int64 // bytes; 0: no bound
	node int64 // bytes; 0: no bound

	mu      sync.Mutex
	held    map[string]int64    // guarded by mu, as all below: by path of a segment that has a Writer, the bytes that it may get
	pods    map[string]*account // by directory of the pod, of those that have or had a Writer here
	all     account
	looking bool
	looked  time.Time
	pause   time.Duration // after that look
	known   chan struct{} // closed when something is known
}

// account is what is known of the disk.
type account struct {
	used    int64 // when it was looked at, segments that have a Writer counting with all that they may get
	granted int64 // since that look began
}

func (a *account) room(bound int64) int64 {
	if bound == 0 {
		return math.MaxInt64
	}
	return bound - a.used - a.granted
}

// NewBudget returns a budget for streams below root, in bytes; 0 is no bound.
func NewBudget(root string, pod, node int64) *Budget {
	if pod == 0 && node == 0 {
		return nil
	}
	return &Budget{root: filepath.Clean(root), pod: pod, node: node, held: map[string]int64{}, pods: map[string]*account{}, known: make(chan struct{})}
}

// overBudget is the cause of a WriteError; trying again can help.
type overBudget struct {
	whose, field string
	used, bound  int64
}

func (e *overBudget) Error() string {
	return fmt.Sprintf("the streams of the %s take %d bytes, and %s in the configuration allows %d; metsuke audit retain makes room", e.whose, e.used, e.field, e.bound)
}

func (e *overBudget) Unwrap() error { return unix.EDQUOT }

func podOf(segment string) string { return filepath.Dir(filepath.Dir(segment)) }

// enter is told of a segment of so many bytes that a Writer begins with, and returns how many it may get without asking: want at most.
func (b *Budget) enter(segment string, size, want int64) int64 {
	if b == nil {
		return want
	}
	limit := min(max(size, first), want)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.take(segment, limit)
	b.look()
	return limit
}

// leave is told of a segment that its Writer is done with, and which has so many bytes.
func (b *Budget) leave(segment string, size int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.take(segment, size)
	delete(b.held, segment)
}

// ask has what there is on the disk looked at, for a grant that is wanted soon.
func (b *Budget) ask() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.look()
}

// grant takes from the budget what a segment may get: want, or what is left of it. It waits until something is known of the disk.
func (b *Budget) grant(segment string, want int64) (limit int64, err error) {
	if b == nil {
		return want, nil
	}
	<-b.known
	b.mu.Lock()
	defer b.mu.Unlock()
	had := b.held[segment]
	pod, all := b.account(podOf(segment)).room(b.pod), b.all.room(b.node)
	limit = min(want, had+max(min(pod, all), 0))
	if limit < had+min(first, want) && limit < want {
		b.look()
		if pod <= all {
			return 0, &overBudget{"pod", "audit.pod_budget", b.pod - pod, b.pod}
		}
		return 0, &overBudget{"node", "audit.node_budget", b.node - all, b.node}
	}
	b.take(segment, limit)
	return limit, nil
}

// exceed is told of a segment that gets so many bytes, whether there is room or not.
func (b *Budget) exceed(segment string, limit int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.take(segment, limit)
}

// take notes that a segment may get so much. The caller holds b.mu.
func (b *Budget) take(segment string, limit int64) {
	more := limit - b.held[segment]
	b.held[segment] = limit
	b.account(podOf(segment)).granted += more
	b.all.granted += more
}

func (b *Budget) account(pod string) *account {
	a := b.pods[pod]
	if a == nil {
		a = &account{}
		b.pods[pod] = a
	}
	return a
}

// look begins a look at the disk, unless one is under way. The caller holds b.mu.
func (b *Budget) look() {
	if b.looking {
		return
	}
	b.looking = true
	go b.lookOnce(time.Until(b.looked.Add(b.pause)))
}

func (b *Budget) lookOnce(wait time.Duration) {
	time.Sleep(wait)
	b.mu.Lock()
	l := look{held: make(map[string]int64, len(b.held)), pods: make(map[string]int64, len(b.pods))}
	for path, limit := range b.held {
		l.held[path] = limit
	}
	was := map[string]int64{}
	for pod, a := range b.pods {
		l.pods[pod], was[pod] = 0, a.granted
	}
	all := b.all.granted
	b.mu.Unlock()

	began := time.Now()
	l.at(b.root, b.pod, b.node)

	b.mu.Lock()
	defer b.mu.Unlock()
	for pod, used := range l.pods {
		a := b.account(pod)
		a.used, a.granted = used, a.granted-was[pod]
	}
	b.all = account{used: l.all, granted: b.all.granted - all}
	b.looking, b.looked, b.pause = false, time.Now(), max(lookAgain, lookShare*time.Since(began))
	select {
	case <-b.known:
	default:
		close(b.known)
	}
}

// look adds up what is on the disk.
type look struct {
	held   map[string]int64 // that were not found yet
	pods   map[string]int64
	all    int64
	enough int64 // bytes from which on what there is need not be known
}

// at looks at the pods that have or had a Writer, and if there is a bound for the node at all that is below root. What cannot be read counts nothing: one stream that is
// damaged must not hold up the others.
func (l *look) at(root string, pod, node int64) {
	l.enough = cmp.Or(pod, node)
	for pod := range l.pods {
		l.pods[pod] = l.tree(pod, 1)
	}
	for path, limit := range l.held { // whose files are about to be made
		l.pods[podOf(path)] += limit
	}
	for _, used := range l.pods {
		l.all += used
	}
	if l.enough = node - l.all; node != 0 && l.enough > 0 {
		l.all += l.entries(root, func(path string, e fs.DirEntry) int64 {
			if _, done := l.pods[path]; done {
				return 0
			}
			if e.IsDir() {
				return l.tree(path, 1)
			}
			return l.file(path, e)
		})
	}
}

// tree is what a directory takes, and what is below it, so many directories deep.
func (l *look) tree(dir string, depth int) int64 {
	return block + l.entries(dir, func(path string, e fs.DirEntry) int64 {
		switch {
		case e.IsDir() && depth > 0:
			return l.tree(path, depth-1)
		case e.IsDir():
			return block
		}
		return l.file(path, e)
	})
}

func (l *look) file(path string, e fs.DirEntry) int64 {
	if limit, ok := l.held[path]; ok {
		delete(l.held, path)
		return limit
	}
	info, err := e.Info()
	if err != nil { // retention was faster
		return 0
	}
	return max((info.Size()+block-1)/block*block, block)
}

// entries adds up what size says of the entries of a directory, until it is enough.
func (l *look) entries(dir string, size func(string, fs.DirEntry) int64) (sum int64) {
	f, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sum < l.enough {
		list, err := f.ReadDir(256)
		for _, e := range list {
			sum += size(filepath.Join(dir, e.Name()), e)
		}
		if err != nil {
			return sum
		}
	}
	return sum
}
