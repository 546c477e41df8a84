// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
)

// releaseForm is how containerd's version begins.
var releaseForm = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})\b`)

func checkContainerd(ctx context.Context, s *survey) (found []Finding) {
	if s.CRI == nil {
		return []Finding{fail(fmt.Sprintf("CRI does not answer: %v", s.CRIError), "no pod starts on this node",
			"systemctl status containerd; if it listens elsewhere, say --containerd-address")}
	}
	v, err := s.CRI.Version(ctx)
	if err != nil {
		return []Finding{fail(fmt.Sprintf("CRI does not answer: %v", err), "no pod starts on this node", "systemctl status containerd")}
	}
	m := releaseForm.FindStringSubmatch(v.Version)
	switch major, minor := number(m, 1), number(m, 2); {
	case v.Runtime != "containerd":
		return []Finding{fail(fmt.Sprintf("the runtime is %q, not containerd", v.Runtime),
			"Metsuke is a shim of containerd's: no other runtime starts it",
			"use containerd 1.7 or later")}
	case m == nil:
		found = append(found, skip("containerd's version is %q, which says nothing", v.Version))
	case major < 1 || major == 1 && minor < 7:
		found = append(found, fail("containerd "+v.Version+" is too old",
			"the shim's protocol is another",
			"upgrade containerd to 1.7 or later"))
	default:
		found = append(found, ok("containerd %s", v.Version))
	}
	if s.KillMode != "" && s.KillMode != "process" && s.KillMode != "none" {
		found = append(found, warn("containerd.service has KillMode="+s.KillMode,
			"a restart of containerd kills the shims, and with them all pods, whatever their handler",
			"systemctl edit containerd.service, the lines [Service] and KillMode=process; then systemctl daemon-reload"))
	}
	return append(found, conditions(ctx, s)...)
}

func number(match []string, at int) int {
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[at]) // at most four digits
	return n
}

func conditions(ctx context.Context, s *survey) (found []Finding) {
	conditions, err := s.CRI.Conditions(ctx)
	if err != nil {
		return []Finding{skip("containerd does not say how it is: %v", err)}
	}
	for _, c := range conditions {
		text := strings.TrimSpace(fmt.Sprintf("%s is false: %s %s", c.Type, c.Reason, c.Message))
		switch {
		case c.Status:
		case c.Type == "RuntimeReady":
			found = append(found, fail(text, "no pod starts on this node", "journalctl -u containerd"))
		case c.Type == "NetworkReady":
			found = append(found, warn(text, "pods with a network of their own do not start, whatever their handler",
				"install or repair the cluster's CNI plugin"))
		}
	}
	return found
}

func checkRestart(ctx context.Context, s *survey) (found []Finding) {
	if s.Containerd == nil {
		return []Finding{skip("containerd's files are not known: %v", s.ContainerdError)}
	}
	if s.handlersErr != nil {
		return []Finding{skip("which handlers are in force is not known: %v", s.handlersErr)}
	}
	dump, err := s.Containerd.Dump(ctx)
	var tables map[string]containerd.Table
	if err == nil {
		tables, err = dump.Handlers()
	}
	if err != nil {
		return []Finding{fail(fmt.Sprintf("containerd does not take its files: %v", err),
			"it does not come up again once it ends: no pod starts then",
			"correct what containerd config dump complains about").at(s.Containerd.Config, 0)}
	}
	written := map[string]cri.Handler{}
	for name, t := range tables {
		written[name] = fromTable(t)
	}
	both := maps.Clone(written)
	maps.Copy(both, s.inForce)
	for _, name := range slices.Sorted(maps.Keys(both)) {
		want, isWritten := written[name]
		have, inForce := s.inForce[name]
		if len(s.wanted) > 0 && !slices.Contains(s.wanted, name) || !isOurs(want) && !isOurs(have) {
			continue
		}
		what := ""
		switch {
		case !inForce:
			what = "the handler is written and not in force"
		case !isWritten:
			what = "the handler is in force and no longer written"
		default:
			what = difference(normal(want), normal(have))
		}
		if what == "" {
			continue
		}
		found = append(found, warn(what, "pods get the handler as it was when containerd started, until it starts again",
			"systemctl restart containerd; running pods are not touched").of(name).at(s.Containerd.Config, 0))
	}
	if len(found) == 0 {
		return []Finding{ok("what is written is in force")}
	}
	return found
}

// fromTable reads a handler's table as containerd does (internal/cri/config, Runtime).
func fromTable(t containerd.Table) (h cri.Handler) {
	text := func(key string) string { s, _ := t[key].(string); return s }
	list := func(key string) (out []string) {
		items, _ := t[key].([]any)
		for _, item := range items {
			out = append(out, fmt.Sprint(item))
		}
		return out
	}
	h = cri.Handler{
		RuntimeType: text("runtime_type"), RuntimePath: text("runtime_path"), Snapshotter: text("snapshotter"), Sandboxer: text("sandboxer"),
		BaseRuntimeSpec: text("base_runtime_spec"), PodAnnotations: list("pod_annotations"), ContainerAnnotations: list("container_annotations"),
	}
	if h.Sandboxer == "" {
		h.Sandboxer = text("sandbox_mode") // 1.7
	}
	h.Options, _ = t["options"].(containerd.Table)
	h.PrivilegedWithoutHostDevices, _ = t["privileged_without_host_devices"].(bool)
	h.CgroupWritable, _ = t["cgroup_writable"].(bool)
	return h
}

// difference says in what two handlers differ, or "".
func difference(written, inForce cri.Handler) string {
	var differ []string
	for _, f := range []struct {
		key string
		of  func(cri.Handler) any
	}{
		{"runtime_type", func(h cri.Handler) any { return h.RuntimeType }},
		{"runtime_path", func(h cri.Handler) any { return h.RuntimePath }},
		{"options.ConfigPath", func(h cri.Handler) any { return configPath(h) }},
		{"pod_annotations", func(h cri.Handler) any { return h.PodAnnotations }},
		{"container_annotations", func(h cri.Handler) any { return h.ContainerAnnotations }},
		{"snapshotter", func(h cri.Handler) any { return h.Snapshotter }},
		{"sandboxer", func(h cri.Handler) any { return h.Sandboxer }},
		{"base_runtime_spec", func(h cri.Handler) any { return h.BaseRuntimeSpec }},
		{"privileged_without_host_devices", func(h cri.Handler) any { return h.PrivilegedWithoutHostDevices }},
		{"cgroup_writable", func(h cri.Handler) any { return h.CgroupWritable }},
	} {
		if a, b := f.of(written), f.of(inForce); !reflect.DeepEqual(a, b) {
			differ = append(differ, fmt.Sprintf("%s is %v in force, and %v written", f.key, b, a))
		}
	}
	return strings.Join(differ, "; ")
}

// normal is a handler with one form for what containerd leaves out in one place and states in the other.
func normal(h cri.Handler) cri.Handler {
	if h.Sandboxer == "" {
		h.Sandboxer = "podsandbox"
	}
	h.PodAnnotations, h.ContainerAnnotations = slices.Concat(h.PodAnnotations), slices.Concat(h.ContainerAnnotations)
	return h
}
