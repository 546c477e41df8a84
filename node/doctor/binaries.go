// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
)

const reinstall = "install the binaries of one version together: metsuke node install, or as docs/node-guide.md says"

func checkShim(ctx context.Context, s *survey) (found []Finding) {
	seen := map[string]bool{}
	for _, u := range s.setups {
		if seen[u.shim] {
			continue
		}
		seen[u.shim] = true
		found = append(found, judgeShim(ctx, s, u.shim)...)
	}
	return found
}

func judgeShim(ctx context.Context, s *survey, shim string) []Finding {
	const breaks = "no pod of Metsuke's handlers starts"
	if shim == "" {
		return []Finding{fail(ShimName+" is not in containerd's PATH", breaks, reinstall)}
	}
	if err := s.executable(shim); err != nil {
		return []Finding{fail(err.Error(), breaks, reinstall).of(shim)}
	}
	if s.noexec(shim) {
		return []Finding{fail("it is on a file system with noexec", breaks, "install it elsewhere, or mount -o remount,exec").of(shim)}
	}
	out, err := s.Run(ctx, shim, "-v")
	version := shimVersion.FindStringSubmatch(string(out))
	switch {
	case err != nil:
		return []Finding{fail(err.Error(), breaks, reinstall).of(shim)}
	case version == nil:
		return []Finding{fail(fmt.Sprintf("-v says %q, which is not what Metsuke's shim says", out), breaks, reinstall).of(shim)}
	case version[1] != s.Version:
		return []Finding{warn(fmt.Sprintf("it is %s, and this is metsuke %s", version[1], s.Version),
			"what is said here may not hold for it", reinstall).of(shim)}
	}
	return []Finding{ok("%s", version[1]).of(shim)}
}

// shimVersion is in what -v prints: containerd's form.
var shimVersion = regexp.MustCompile(`(?m)^\s*Version:\s*(\S+)$`)

func checkHelper(ctx context.Context, s *survey) []Finding {
	return s.each(func(u *setup) []Finding {
		helper := s.helperOf(u)
		if helper == "" {
			return []Finding{skip("it is beside the shim, and that was not found")}
		}
		return about(helper, judgeHelper(ctx, s, u, helper))
	})
}

// helperOf is the helper that a setup's shim takes: the configured one, or that beside the shim once links are followed.
func (s *survey) helperOf(u *setup) string {
	if u.config.Supervisor.Helper != "" || u.shim == "" {
		return u.config.Supervisor.Helper
	}
	real, err := s.Tree.Follow(u.shim)
	if err != nil {
		real = u.shim
	}
	return path.Join(path.Dir(real), "metsuke-guest")
}

func judgeHelper(ctx context.Context, s *survey, u *setup, helper string) (found []Finding) {
	const breaks = "no container starts: the helper is its first program"
	st, err := s.Tree.Stat(helper)
	if err != nil {
		return []Finding{fail(err.Error(), breaks, reinstall+"; or correct supervisor.helper")}
	}
	if !st.Mode().IsRegular() {
		return []Finding{fail("it is not a regular file", breaks, reinstall)}
	}
	if !s.ownedByRoot(st) {
		found = append(found, fail("it does not belong to root", "whoever owns it decides what supervises containers", reinstall))
	}
	if mode := st.Mode().Perm(); mode&0o022 != 0 || mode&0o001 == 0 {
		what := "it is writable by others than its owner"
		if mode&0o001 == 0 {
			what = "containers that are not root cannot execute it"
		}
		found = append(found, fail(fmt.Sprintf("%s: mode %#o", what, mode),
			"such containers do not start, or somebody can change what supervises them",
			"chmod 0711 "+helper).by(func(context.Context) (string, error) { return s.chmod(helper, 0o711) }))
	}
	if s.noexec(helper) {
		found = append(found, fail("it is on a file system with noexec", breaks, "install it elsewhere, or mount -o remount,exec"))
	}
	if u.traits().Sandboxed && (strings.Contains(helper, "/proc/") || strings.Contains(helper, "/sys/")) {
		found = append(found, fail("its path has /proc/ or /sys/ in it", "Kata takes it for a path of its guest's: no pod starts",
			"set supervisor.helper to another path"))
	}
	if len(found) > 0 {
		return found
	}
	return []Finding{judgeHelperVersion(ctx, s, u, helper)}
}

func judgeHelperVersion(ctx context.Context, s *survey, u *setup, helper string) Finding {
	out, err := s.Run(ctx, helper, "version")
	version := strings.TrimSpace(string(out))
	if err != nil {
		return fail(err.Error(), "no container starts: the helper is its first program", reinstall)
	}
	if out, err := s.Run(ctx, u.shim, "-v"); err == nil {
		if m := shimVersion.FindStringSubmatch(string(out)); m != nil && m[1] != version {
			return fail(fmt.Sprintf("it is %s, and the shim is %s", version, m[1]),
				"they may not understand each other: no container starts then",
				reinstall)
		}
	}
	return ok("%s", version)
}

// chmod mends the mode of a file of the node.
func (n *Node) chmod(file string, mode fs.FileMode) (string, error) {
	reached, release, err := n.Tree.Reach(file)
	if err != nil {
		return "", err
	}
	defer release()
	return fmt.Sprintf("chmod %#o %s", mode, file), os.Chmod(reached, mode)
}
