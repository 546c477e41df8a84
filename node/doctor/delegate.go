// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/shim/delegate"
)

// noPod is what comes of most faults of a configuration.
const noPod = "no pod of its handlers starts"

func checkDelegate(ctx context.Context, s *survey) []Finding {
	return s.each(func(u *setup) []Finding {
		binary := s.delegateOf(u)
		if binary == "" {
			return []Finding{fail(u.config.Delegate.Binary+" is neither in PATH nor beside the shim",
				noPod,
				"install it, or name its path: delegate.binary").at(u.path, 0)}
		}
		return about(binary, judgeDelegate(ctx, s, u, binary))
	})
}

// delegateOf is where the delegate is found, as the shim looks for it (shim/delegate, Config.Find); empty: nowhere.
func (s *survey) delegateOf(u *setup) string {
	if name := u.config.Delegate.Binary; !path.IsAbs(name) {
		beside := u.shim
		if real, err := s.Tree.Follow(u.shim); u.shim != "" && err == nil {
			beside = real
		}
		return s.lookPath(name, beside)
	}
	return u.config.Delegate.Binary
}

func judgeDelegate(ctx context.Context, s *survey, u *setup, binary string) []Finding {
	kata := u.config.Delegate.Kata != nil
	if err := s.executable(binary); err != nil {
		return []Finding{fail(err.Error(), noPod, "install it, or correct delegate.binary").at(u.path, 0)}
	}
	if path.Base(binary) == ShimName {
		return []Finding{fail("it is Metsuke's own shim", noPod, "name another: delegate.binary").at(u.path, 0)}
	}
	flag := "-v"
	if kata {
		flag = "--version"
	}
	out, err := s.Run(ctx, binary, flag)
	if err != nil {
		return []Finding{fail(err.Error(), noPod, "reinstall the delegate")}
	}
	if kata {
		return []Finding{ok("%s", firstLine(out))}
	}
	return judgeRunc(ctx, s, u)
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

// runcForm is how `runc --version` begins; others (crun, youki) begin with their own name.
var runcForm = regexp.MustCompile(`^runc version (\d{1,4})\.(\d{1,4})`)

// judgeRunc looks at the program that runc's shim runs, and at the form of the cgroups that it is told.
func judgeRunc(ctx context.Context, s *survey, u *setup) (found []Finding) {
	o := u.config.Delegate.Runc
	name := o.BinaryName
	if name == "" {
		name = "runc"
	}
	binary := name
	if !path.IsAbs(name) {
		if binary = s.lookPath(name, ""); binary == "" {
			return []Finding{fail(name+" is not in PATH",
				"no container starts",
				"install it, or name its path: delegate.options.BinaryName").at(u.path, 0)}
		}
	}
	out, err := s.Run(ctx, binary, "--version")
	m := runcForm.FindSubmatch(out)
	switch {
	case err != nil:
		found = append(found, fail(err.Error(), "no container starts", "reinstall it, or correct delegate.options.BinaryName"))
	case m != nil && string(m[1]) == "1" && string(m[2]) == "0" || m != nil && string(m[1]) == "0":
		found = append(found, fail(firstLine(out)+" is too old", "containers may not start", "upgrade runc to 1.1 or later"))
	default:
		found = append(found, ok("with %s", firstLine(out)))
	}
	own, there := s.inForce["runc"]
	systemd, _ := own.Options["SystemdCgroup"].(bool)
	if there && own.RuntimeType == delegate.RuncType && systemd != o.SystemdCgroup {
		found = append(found, fail(fmt.Sprintf("delegate.options.SystemdCgroup is %t, and containerd's own handler runc has %t", o.SystemdCgroup, systemd),
			"containers are not put where the kubelet's pod is: they do not start, or the pod's limits do not hold for them",
			fmt.Sprintf("[delegate.options] SystemdCgroup = %t, in %s", systemd, orDefault(u.path))).at(u.path, 0))
	}
	return found
}

// orDefault is the file that a setup's configuration is to be written to.
func orDefault(file string) string {
	if file == "" {
		return config.DefaultPath
	}
	return file
}
