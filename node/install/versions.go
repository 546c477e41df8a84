// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Source is where the binaries of a version come from: a directory of the installer's own files, not of the node's.
type Source struct {
	Dir     string
	Version string
}

// manifest is the file in a version's directory that says whose it is: the sums of its binaries, as sha256sum(1) writes them.
const manifest = "SHA256SUMS"

var versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)

func (s Source) manifest() (string, error) {
	if !versionForm.MatchString(s.Version) || s.Version == path.Base(Current) {
		return "", fmt.Errorf("version %q cannot be the name of a directory", s.Version)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(Binaries)) {
		sum, err := sumFile(filepath.Join(s.Dir, name))
		if err != nil {
			return "", fmt.Errorf("the binaries to install: %w; --from DIR says where they are", err)
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, name)
	}
	return b.String(), nil
}

func sumFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// present reports whether the version is in its directory as it should be. Another build under its name is an error: what runs from
// that directory would change under living pods.
func (n *Node) present(version, sums string) (bool, error) {
	dir := path.Join(Home, version)
	if _, err := n.Tree.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	have, err := n.sums(dir)
	if err != nil {
		return false, err
	}
	if have != sums {
		return false, fmt.Errorf("%s has another build of this version, which running pods may use. Build with a version of its own "+
			"(make build VERSION=…), or end what uses it (metsuke node status), link another version, and remove the directory", dir)
	}
	return true, nil
}

// sums is what a manifest of the binaries in a directory says.
func (n *Node) sums(dir string) (string, error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(Binaries)) {
		sum, err := n.Tree.Sum(path.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, name)
	}
	return b.String(), nil
}

// stage puts a version into its directory, which comes to be whole or not at all.
func (n *Node) stage(s Source, sums string) error {
	if ok, err := n.present(s.Version, sums); ok || err != nil {
		return err
	}
	if err := errors.Join(n.Tree.RemoveAll(staged), n.Tree.Mkdir(staged, 0o755)); err != nil {
		return err
	}
	for name, mode := range Binaries {
		f, err := os.Open(filepath.Join(s.Dir, name))
		if err != nil {
			return err
		}
		err = errors.Join(n.Tree.Copy(path.Join(staged, name), f, fs.FileMode(mode)), f.Close())
		if err != nil {
			return err
		}
	}
	if err := n.Tree.WriteFile(path.Join(staged, manifest), []byte(sums), 0o644); err != nil {
		return err
	}
	// The source may be somebody else's to write: what counts is what has arrived.
	if have, err := n.sums(staged); err != nil || have != sums {
		return errors.Join(err, fmt.Errorf("%s changed while it was copied", s.Dir))
	}
	return n.Tree.Rename(staged, path.Join(Home, s.Version))
}

// linked is the version that Current leads to; "" for none.
func (n *Node) linked() (string, error) {
	target, err := n.Tree.Readlink(Current)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%w; it should be a link to a version: remove it", err)
	}
	if !versionForm.MatchString(target) {
		return "", fmt.Errorf("%s leads to %q, which is not the name of a version beside it: remove it", Current, target)
	}
	return target, nil
}

// link makes Current lead to a version; "" takes it away.
func (n *Node) link(version string) error {
	if version == "" {
		return n.Tree.Remove(Current)
	}
	return n.Tree.Symlink(version, Current)
}

// Version is one that is present on a node.
type Version struct {
	Name   string `json:"name"`
	Ours   bool   `json:"ours"` // installed by this command and unchanged since
	Linked bool   `json:"linked"`
	// Processes run its binaries, besides the one that asks.
	Processes []int `json:"processes"`
}

// versions are those present, by name. judged is false if the node's processes cannot all be seen: then a version may be in use.
func (n *Node) versions() (found []Version, judged bool, err error) {
	entries, err := n.Tree.ReadDir(Home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	linked, err := n.linked()
	if err != nil {
		return nil, false, err
	}
	owners := map[inode]int{}
	for _, e := range entries {
		if !e.IsDir() || !versionForm.MatchString(e.Name()) {
			continue
		}
		v := Version{Name: e.Name(), Linked: e.Name() == linked, Processes: []int{}}
		dir := path.Join(Home, v.Name)
		if v.Ours, err = n.ours(dir); err != nil {
			return nil, false, err
		}
		for name := range Binaries {
			if info, err := n.Tree.Stat(path.Join(dir, name)); err == nil {
				owners[inodeOf(info)] = len(found)
			}
		}
		found = append(found, v)
	}
	processes, judged := n.processes()
	for pid, exe := range processes {
		if i, ok := owners[exe]; ok {
			found[i].Processes = append(found[i].Processes, pid)
		}
	}
	for _, v := range found {
		slices.Sort(v.Processes)
	}
	return found, judged, nil
}

// ours reports whether a version's directory is as we made it, and has nothing else in it.
func (n *Node) ours(dir string) (bool, error) {
	entries, err := n.Tree.ReadDir(dir)
	if err != nil {
		return false, err
	}
	text, err := n.Tree.ReadFile(path.Join(dir, manifest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sums, err := n.sums(dir)
	return err == nil && string(text) == sums && len(entries) == len(Binaries)+1, err
}

type inode struct{ dev, ino uint64 }

func inodeOf(info fs.FileInfo) inode {
	st, _ := info.Sys().(*syscall.Stat_t)
	return inode{st.Dev, st.Ino}
}

// processes are the executables of the node's processes but this one, which may be the installed metsuke, by inode, so that it does not
// matter in which mount namespace they are. The second value is false if some cannot be seen.
func (n *Node) processes() (map[int]inode, bool) {
	proc, release, err := n.Tree.Reach("/proc")
	if err != nil {
		return nil, false
	}
	defer release()
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, false
	}
	self, _ := os.Readlink(filepath.Join(proc, "self")) // in the numbers of that /proc; none if this process is not in it
	found, all, some := map[int]inode{}, true, false
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		some = true
		if e.Name() == self {
			continue
		}
		info, err := os.Stat(filepath.Join(proc, e.Name(), "exe"))
		switch {
		case err == nil:
			found[pid] = inodeOf(info)
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH): // a thread of the kernel, or it has ended
		default:
			all = false
		}
	}
	return found, all && some
}

// clean removes the versions of ours that are neither linked, nor the one before, nor in use. One that cannot be judged stays.
func (n *Node) clean(r *record) error {
	return n.removeVersions(func(v Version) bool { return !v.Linked && v.Name != r.Previous })
}

func (n *Node) removeVersions(which func(Version) bool) error {
	found, judged, err := n.versions()
	if err != nil || !judged {
		return err
	}
	for _, v := range found {
		if !v.Ours || len(v.Processes) > 0 || !which(v) {
			continue
		}
		// It goes at once, so that nobody starts half of it.
		if err := errors.Join(n.Tree.RemoveAll(removed), n.Tree.Rename(path.Join(Home, v.Name), removed), n.Tree.RemoveAll(removed)); err != nil {
			return err
		}
		n.Say("removed version " + v.Name)
	}
	return nil
}
