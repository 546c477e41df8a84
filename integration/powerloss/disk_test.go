// SPDX-License-Identifier: Apache-2.0

package powerloss

import (
	"context"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// page is what reaches the disk whole, or not at all, in bytes.
const page = 4096

// A disk is a file system in memory that keeps apart what is there and what is on the disk: of a file, what was written before its last
// fsync(2); of a directory, the entries that it had at its own. What came since may be on the disk or not, each page and each entry for
// itself, once the power has failed: only within a page does nothing overtake.
type disk struct {
	mu    sync.Mutex
	root  *object
	watch func() // called after each operation, with mu held; nil: nobody
}

// object is a file or a directory; guarded by the disk's mu.
type object struct {
	live, safe []byte // of a file
	writes     []write
	entries    map[string]*object // of a directory; nil: it is a file
	onDisk     map[string]*object
	changes    []change
}

// write is a write of a piece of a page, or a new size.
type write struct {
	offset int64
	data   []byte // nil: the file is cut to offset
}

// change is an entry that was made, or with nil removed.
type change struct {
	name string
	to   *object
}

func newDir() *object { return &object{entries: map[string]*object{}, onDisk: map[string]*object{}} }

// did ends an operation, which has the lock.
func (d *disk) did() {
	if d.watch != nil {
		d.watch()
	}
	d.mu.Unlock()
}

// A loss decides what of the things that were not synced reaches the disk.
type loss func(n int) []bool

// nothing of it reaches the disk.
func nothing(n int) []bool { return make([]bool, n) }

// everything does.
func everything(n int) []bool { return slices.Repeat([]bool{true}, n) }

// some of it does.
func some(r *rand.Rand) loss {
	return func(n int) []bool {
		kept := make([]bool, n)
		for i := range kept {
			kept[i] = r.IntN(2) == 0
		}
		return kept
	}
}

// first does, and not what came later.
func first(r *rand.Rand) loss {
	return func(n int) []bool {
		kept := make([]bool, n)
		for i := range r.IntN(n + 1) {
			kept[i] = true
		}
		return kept
	}
}

// afterFailure returns what is on the disk after a power failure: contents of files by their paths, nil for directories.
func (d *disk) afterFailure(lost loss) map[string][]byte {
	tree := map[string][]byte{}
	d.root.survive(".", lost, tree)
	return tree
}

func (o *object) survive(path string, lost loss, tree map[string][]byte) {
	if o.entries == nil {
		tree[path] = o.contents(lost)
		return
	}
	tree[path] = nil
	entries := maps.Clone(o.onDisk)
	for i, kept := range lost(len(o.changes)) {
		if c := o.changes[i]; kept && c.to != nil {
			entries[c.name] = c.to
		} else if kept {
			delete(entries, c.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		entries[name].survive(filepath.Join(path, name), lost, tree)
	}
}

// contents are a file's after the failure. Of a page, what came later is there only if what came before is.
func (o *object) contents(lost loss) []byte {
	data, behind := slices.Clone(o.safe), map[int64]bool{} // pages that are as they were before a write that is lost
	for i, kept := range lost(len(o.writes)) {
		w := &o.writes[i]
		if at := w.offset / page; w.data != nil {
			behind[at] = behind[at] || !kept
			kept = !behind[at]
		}
		if kept {
			data = w.apply(data)
		}
	}
	return append([]byte{}, data...)
}

func (w *write) apply(data []byte) []byte {
	end := w.offset + int64(len(w.data))
	if w.data == nil && int64(len(data)) > end {
		return data[:end]
	}
	if grow := end - int64(len(data)); grow > 0 { // what is between is zeros
		data = append(data, make([]byte, grow)...)
	}
	copy(data[w.offset:], w.data)
	return data
}

// node is an object as the kernel sees it.
type node struct {
	fs.Inode
	disk *disk
	*object
}

// mount mounts an empty disk, until the test ends.
func mount(t *testing.T) (*disk, string) {
	t.Helper()
	d, dir := &disk{root: newDir()}, t.TempDir()
	server, err := fs.Mount(dir, &node{disk: d, object: d.root}, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: "powerloss", Name: "powerloss", DirectMountStrict: true, AllowOther: false},
	})
	if err != nil {
		t.Fatalf("mount a file system in user space (needs root and /dev/fuse): %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

func (n *node) add(ctx context.Context, name string, o *object, mode uint32) *fs.Inode {
	n.disk.mu.Lock()
	defer n.disk.did()
	n.entries[name] = o
	n.changes = append(n.changes, change{name, o})
	return n.NewPersistentInode(ctx, &node{disk: n.disk, object: o}, fs.StableAttr{Mode: mode})
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, newDir(), fuse.S_IFDIR), 0
}

// Create implements fs.NodeCreater. Nothing is cached: each write(2) comes here as it is.
func (n *node) Create(ctx context.Context, name string, _, _ uint32, _ *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return n.add(ctx, name, &object{}, fuse.S_IFREG), nil, fuse.FOPEN_DIRECT_IO, 0
}

// Open implements fs.NodeOpener.
func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.did()
	delete(n.entries, name)
	n.changes = append(n.changes, change{name, nil})
	return 0
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.attr(out)
	return 0
}

func (n *node) attr(out *fuse.AttrOut) {
	out.Mode, out.Nlink = 0o600, 1
	if n.entries != nil {
		out.Mode = 0o700
	}
	out.Size = uint64(len(n.live))
}

// Setattr implements fs.NodeSetattrer: of a size.
func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.did()
	if size, ok := in.GetSize(); ok {
		n.write(write{int64(size), nil})
	}
	n.attr(out)
	return 0
}

func (n *node) write(w write) {
	n.live = w.apply(n.live)
	n.writes = append(n.writes, w)
}

// Read implements fs.NodeReader.
func (n *node) Read(_ context.Context, _ fs.FileHandle, to []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	from := min(offset, int64(len(n.live)))
	return fuse.ReadResultData(slices.Clone(n.live[from:min(from+int64(len(to)), int64(len(n.live)))])), 0
}

// Write implements fs.NodeWriter.
func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.did()
	written := uint32(len(data))
	for len(data) > 0 {
		piece := min(page-offset%page, int64(len(data)))
		n.write(write{offset, slices.Clone(data[:piece])})
		data, offset = data[piece:], offset+piece
	}
	return written, 0
}

// Fsync implements fs.NodeFsyncer, for files and for directories.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.did()
	n.safe, n.writes = slices.Clone(n.live), nil
	n.onDisk, n.changes = maps.Clone(n.entries), nil
	return 0
}
