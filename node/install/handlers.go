// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
)

// Handler is one of Metsuke's handlers, as it is wanted on a node.
type Handler struct {
	Name     string
	Plain    string // the handler of containerd's that it stands in front of
	Delegate string // the delegate's binary
	File     string // its configuration

	text  string           // of File
	table containerd.Table // in containerd's configuration
}

const (
	runtimeType = "io.containerd.metsuke.v2"
	runcType    = "io.containerd.runc.v2"
	runcShim    = "containerd-shim-runc-v2"
)

var (
	kataType    = regexp.MustCompile(`^io\.containerd\.(kata(?:-[a-z0-9]+)*)\.v2$`)
	handlerName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$`) // a RuntimeClass names it, so it is a DNS label
)

// finder collects handlers, and says what is left out and why.
type finder struct {
	containerd *containerd.Containerd
	plain      map[string]containerd.Table
	handlers   []Handler
	notes      []string
}

func (f *finder) note(format string, args ...any) {
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

// findHandlers makes a handler for each delegate: one for runc, and one for each handler of Kata's. plain is what containerd has
// without ours, and def its default.
func findHandlers(c *containerd.Containerd, plain map[string]containerd.Table, def string) ([]Handler, []string) {
	f := &finder{containerd: c, plain: plain}
	f.runc(def)
	for _, name := range slices.Sorted(maps.Keys(plain)) {
		if kataType.MatchString(text(plain[name], "runtime_type")) {
			f.kata(name)
		}
	}
	slices.SortFunc(f.handlers, func(a, b Handler) int { return strings.Compare(a.Name, b.Name) })
	return f.handlers, f.notes
}

// runc adds metsuke-runc, with the settings of the handler called runc, or else of the default, or else of the first of its type.
func (f *finder) runc(def string) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(f.plain)), func(name string) bool {
		return text(f.plain[name], "runtime_type") != runcType
	})
	if len(names) == 0 {
		f.note("no handler for runc: containerd has none of type %s", runcType)
		return
	}
	plain := names[0]
	for _, name := range []string{def, "runc"} {
		if slices.Contains(names, name) {
			plain = name
		}
	}
	binary := f.delegate(plain, runcShim)
	if binary == "" {
		return
	}
	options, _ := f.plain[plain]["options"].(containerd.Table)
	f.add("metsuke-runc", plain, runcType, binary, options, []string{
		"BinaryName", "Root", "SystemdCgroup", "ShimCgroup", "NoPivotRoot", "NoNewKeyring", "IoUid", "IoGid", "CriuImagePath", "CriuWorkPath",
	})
}

// kata adds metsuke-NAME for a handler of Kata's.
func (f *finder) kata(plain string) {
	if strings.HasSuffix(plain, "-debug") || strings.HasSuffix(plain, "-devkit") {
		f.note("no handler for %s: guests of its kind have a debug console, which is a way past everything", plain)
		return
	}
	table := f.plain[plain]
	kind := kataType.FindStringSubmatch(text(table, "runtime_type"))[1]
	binary := f.delegate(plain, "containerd-shim-"+kind+"-v2")
	if binary == "" {
		return
	}
	options, _ := table["options"].(containerd.Table)
	f.add("metsuke-"+plain, plain, text(table, "runtime_type"), binary, options, []string{"ConfigPath"})
}

// delegate is the binary of a plain handler, or "" with a note.
func (f *finder) delegate(plain, name string) string {
	if binary := text(f.plain[plain], "runtime_path"); binary != "" {
		if f.containerd.Executable(binary) && path.Clean(binary) == binary {
			return binary
		}
		f.note("no handler for %s: its runtime_path %s is no program on this node", plain, binary)
		return ""
	}
	binary := f.containerd.LookPath(name)
	if binary == "" {
		f.note("no handler for %s: there is no %s in %s, nor beside containerd", plain, name, strings.Join(containerd.SearchPath, ":"))
	}
	return binary
}

// carried are the settings of a plain handler that Metsuke's takes over. What is not here: what says which runtime it is; sandboxer and
// io_type, which Metsuke's shim does not serve otherwise than by default; cgroup_writable, with which a container can lift its limits.
var carried = []string{
	"base_runtime_spec", "cni_conf_dir", "cni_max_conf_num", "container_annotations", "snapshotter",
	"privileged_without_host_devices", "privileged_without_host_devices_all_devices_allowed",
}

func (f *finder) add(name, plain, delegateType, binary string, options containerd.Table, known []string) {
	if !handlerName.MatchString(name) {
		f.note("no handler for %q: the name is none of a RuntimeClass", plain)
		return
	}
	if _, ok := f.plain[name]; ok {
		f.note("handler %s is there already, and not by this command: left alone", name)
		return
	}
	h := Handler{Name: name, Plain: plain, Delegate: binary, File: Etc + "/" + name + ".toml"}
	body := fmt.Sprintf("version = 1\n\n[delegate]\nruntime_type = %q\nbinary = %q\n\n[delegate.options]\n", delegateType, binary)
	for _, key := range slices.Sorted(maps.Keys(options)) {
		switch {
		case isZero(options[key]):
		case !slices.Contains(known, key):
			f.note("handler %s: the option %s of %s is not carried over, because Metsuke does not know it", name, key, plain)
		default:
			body += key + " = " + containerd.Value(options[key]) + "\n"
		}
	}
	h.text = containerd.Seal(body)
	if _, err := config.Parse(h.File, []byte(h.text)); err != nil {
		f.note("no handler for %s: %v", plain, err)
		return
	}
	h.table = containerd.Table{
		"runtime_type": runtimeType, "runtime_path": Current + "/" + shim,
		"options": containerd.Table{"ConfigPath": h.File},
	}
	from := f.plain[plain]
	for _, key := range carried {
		if !isZero(from[key]) {
			h.table[key] = from[key]
		}
	}
	annotations := append([]string{"metsuke.dev/*"}, texts(from["pod_annotations"])...)
	if delegateType != runcType {
		annotations = append(annotations, "io.katacontainers.*")
		h.table["privileged_without_host_devices"] = true // a VM has none of the node's devices
	}
	h.table["pod_annotations"] = unique(annotations)
	if from["cgroup_writable"] == true {
		f.note("handler %s: cgroup_writable of %s is not carried over: a container could lift its limits", name, plain)
	}
	f.handlers = append(f.handlers, h)
}

// inForce reports whether what containerd serves is this handler, as far as CRI tells.
func (h Handler) inForce(is cri.Handler) bool {
	options, _ := h.table["options"].(containerd.Table)
	return is.RuntimeType == runtimeType && is.RuntimePath == h.table["runtime_path"] && is.Options["ConfigPath"] == options["ConfigPath"] &&
		slices.Equal(is.PodAnnotations, texts(h.table["pod_annotations"])) &&
		slices.Equal(is.ContainerAnnotations, texts(h.table["container_annotations"])) &&
		is.Snapshotter == text(h.table, "snapshotter") && is.BaseRuntimeSpec == text(h.table, "base_runtime_spec") &&
		is.PrivilegedWithoutHostDevices == (h.table["privileged_without_host_devices"] == true) && !is.CgroupWritable
}

func text(t containerd.Table, key string) string {
	s, _ := t[key].(string)
	return s
}

func texts(v any) []string {
	if list, ok := v.([]string); ok {
		return list
	}
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// isZero reports whether a value of a dump says what its absence says.
func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case containerd.Table:
		return len(v) == 0
	}
	return v == "" || v == false || v == int64(0)
}
