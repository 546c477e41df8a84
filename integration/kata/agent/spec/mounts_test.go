// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMounts(t *testing.T) {
	tmpfs := func(at string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: "tmpfs", Options: options}
	}
	bind := func(at string) specs.Mount {
		return specs.Mount{Destination: at, Type: "bind", Options: []string{"bind"}}
	}
	other := errors.New("any error")
	tests := map[string]struct {
		mounts []specs.Mount
		want   error
	}{
		"in a writable tmpfs":           {[]specs.Mount{tmpfs("/a"), bind("/a/b")}, nil},
		"in a read-only tmpfs":          {[]specs.Mount{tmpfs("/a", "ro"), bind("/a/b")}, unix.EROFS},
		"deep in a read-only tmpfs":     {[]specs.Mount{tmpfs("/a/", "ro"), bind("/a/b/c")}, unix.EROFS},
		"not a bind":                    {[]specs.Mount{tmpfs("/a", "ro"), tmpfs("/a/b")}, unix.ENOENT},
		"the last option counts":        {[]specs.Mount{tmpfs("/a", "ro", "rw"), bind("/a/b")}, nil},
		"over it":                       {[]specs.Mount{tmpfs("/a", "ro"), bind("/a")}, nil},
		"beside it":                     {[]specs.Mount{tmpfs("/a", "ro"), bind("/ab")}, nil},
		"mounted later":                 {[]specs.Mount{bind("/a/b"), tmpfs("/a", "ro")}, nil},
		"in a writable one inside":      {[]specs.Mount{tmpfs("/a"), tmpfs("/a/b"), tmpfs("/a", "ro"), bind("/a/b/c")}, nil},
		"/dev is read-only at the end":  {[]specs.Mount{tmpfs("/dev", "ro"), bind("/dev/log")}, nil},
		"relative":                      {[]specs.Mount{bind("a")}, other},
		"dots":                          {[]specs.Mount{bind("/a/../b")}, other},
		"dots in a name":                {[]specs.Mount{bind("/a..b")}, other},
		"below /proc":                   {[]specs.Mount{bind("/proc/sys/x")}, other},
		"a file of /proc that may be":   {[]specs.Mount{bind("/proc/uptime")}, nil},
		"below /proc by options alone":  {[]specs.Mount{{Destination: "/proc/x", Options: []string{"rbind"}}}, other},
		"a file system below /proc":     {[]specs.Mount{tmpfs("/proc/x")}, nil},
		"cgroup at any place":           {[]specs.Mount{tmpfs("/a"), {Destination: "/a/b", Type: "cgroup"}}, nil},
		"over a read-only tmpfs's part": {[]specs.Mount{tmpfs("/a", "ro"), tmpfs("/a"), bind("/a/b")}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := Mounts(test.mounts)
			if errors.Is(test.want, other) && err == nil || !errors.Is(test.want, other) && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestBindByOption(t *testing.T) {
	mounts := []specs.Mount{{Destination: "/a", Type: "none", Options: []string{"rbind"}}}
	if err := Mounts(mounts); err != nil || mounts[0].Type != "bind" {
		t.Errorf("type %q, %v; want bind", mounts[0].Type, err)
	}
}

func TestNamespaces(t *testing.T) {
	shared := Shared{IPC: "/ns/ipc", UTS: "/ns/uts"}
	s := &specs.Spec{Hostname: "host", Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
		{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace, Path: "/of/the/host"}, {Type: specs.MountNamespace},
		{Type: specs.PIDNamespace, Path: "/of/the/host"},
	}}}
	Namespaces(s, shared)
	want := []specs.LinuxNamespace{
		{Type: specs.IPCNamespace, Path: "/ns/ipc"}, {Type: specs.UTSNamespace, Path: "/ns/uts"}, {Type: specs.MountNamespace},
		{Type: specs.PIDNamespace}, {Type: specs.CgroupNamespace},
	}
	if !reflect.DeepEqual(s.Linux.Namespaces, want) || s.Hostname != "" {
		t.Errorf("got %v, host name %q; want %v and none", s.Linux.Namespaces, s.Hostname, want)
	}
	shared.PID = "/proc/7/ns/pid"
	Namespaces(s, shared)
	if got := s.Linux.Namespaces[3].Path; got != shared.PID {
		t.Errorf("the pid namespace is %q, want the sandbox's", got)
	}
}

func TestTakeNetworkSysctls(t *testing.T) {
	s := &specs.Spec{Linux: &specs.Linux{Sysctl: map[string]string{"net.core.somaxconn": "1", "kernel.shmmax": "2"}}}
	taken := TakeNetworkSysctls(s)
	if len(taken) != 1 || taken["net.core.somaxconn"] != "1" || len(s.Linux.Sysctl) != 1 {
		t.Errorf("taken %v, left %v", taken, s.Linux.Sysctl)
	}
	own := &specs.Spec{Linux: &specs.Linux{
		Sysctl: map[string]string{"net.core.somaxconn": "1"}, Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}}}
	if taken := TakeNetworkSysctls(own); len(taken) != 0 || len(own.Linux.Sysctl) != 1 {
		t.Errorf("of a container with a network of its own: taken %v", taken)
	}
}
