// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/tomlfile"
)

// fields are all fields of the file but the delegate's options, in the order of the documentation.
var fields = []tomlfile.Field[*Config]{
	{Path: "version", Set: func(*Config, any) string { return "" }}, // read before
	{Path: "default_profile", Set: func(c *Config, v any) string { return profileName(&c.DefaultProfile, v) }},
	{Path: "floor", Set: func(c *Config, v any) string {
		if v == "" {
			c.Floor = ""
			return ""
		}
		return profileName(&c.Floor, v)
	}},
	{Path: "delegate.runtime_type", Set: func(c *Config, v any) string { return text(&c.Delegate.RuntimeType, v) }}, // checked in delegateFields
	{Path: "delegate.binary", Set: func(c *Config, v any) string {
		s, ok := v.(string)
		if !ok || s == "" || strings.ContainsRune(s, '/') && !isPath(s) {
			return "an absolute path, or a name without a slash"
		}
		c.Delegate.Binary = s
		return ""
	}},
	{Path: "supervisor.placement", Set: func(c *Config, v any) string {
		return tomlfile.Word(&c.Supervisor.Placement, v, PlacementHost, PlacementGuest)
	}},
	{Path: "supervisor.helper", Set: func(c *Config, v any) string { return optionalPath(&c.Supervisor.Helper, v) }},
	{Path: "deadlines.armed", Set: func(c *Config, v any) string {
		return tomlfile.Duration(&c.Deadlines.Armed, v, 100*time.Millisecond, 5*time.Minute)
	}},
	{Path: "deadlines.start", Set: func(c *Config, v any) string {
		return tomlfile.Duration(&c.Deadlines.Start, v, time.Second, 5*time.Minute)
	}},
	{Path: "deadlines.delete", Set: func(c *Config, v any) string {
		return tomlfile.Duration(&c.Deadlines.Delete, v, 500*time.Millisecond, time.Minute)
	}},
	{Path: "directories.profiles", Set: func(c *Config, v any) string {
		c.Directories.ProfilesNamed = true
		return directory(&c.Directories.Profiles, v)
	}},
	{Path: "directories.audit", Set: func(c *Config, v any) string { return directory(&c.Directories.Audit, v) }},
	{Path: "directories.state", Set: func(c *Config, v any) string { return directory(&c.Directories.State, v) }},
	{Path: "audit.segment_size", Set: func(c *Config, v any) string {
		return bytes(&c.Audit.SegmentSize, v, 64<<10, 16<<30, "64Mi")
	}},
	{Path: "audit.segment_age", Set: func(c *Config, v any) string { return orNone(&c.Audit.SegmentAge, v, time.Minute) }},
	{Path: "audit.pod_budget", Set: func(c *Config, v any) string { return budget(&c.Audit.PodBudget, v) }},
	{Path: "audit.node_budget", Set: func(c *Config, v any) string { return budget(&c.Audit.NodeBudget, v) }},
	{Path: "audit.retention.max_age", Set: func(c *Config, v any) string { return orNone(&c.Audit.Retention.MaxAge, v, time.Minute) }},
	{Path: "audit.retention.pod_size", Set: func(c *Config, v any) string { return budget(&c.Audit.Retention.PodSize, v) }},
	{Path: "audit.retention.node_size", Set: func(c *Config, v any) string { return budget(&c.Audit.Retention.NodeSize, v) }},
	{Path: "audit.retention.compress", Set: func(c *Config, v any) string { return tomlfile.Bool(&c.Audit.Retention.Compress, v) }},
	{Path: "audit.retention.shipped", Set: func(c *Config, v any) string { return names(&c.Audit.Retention.Shipped, v) }},
	{Path: "audit.retention.checkpoints", Set: func(c *Config, v any) string { return directory(&c.Audit.Retention.Checkpoints, v) }},
	{Path: "audit.key", Set: func(c *Config, v any) string {
		c.Audit.KeyNamed = true
		if v == "" {
			return "an absolute path without . or .."
		}
		return optionalPath(&c.Audit.Key, v)
	}},
	{Path: "audit.stall_timeout", Set: func(c *Config, v any) string {
		return tomlfile.Duration(&c.Audit.StallTimeout, v, 100*time.Millisecond, 10*time.Minute)
	}},
}

// kataType is the family of Kata's shims: io.containerd.kata.v2, io.containerd.kata-qemu.v2 ...
var kataType = regexp.MustCompile(`^io\.containerd\.kata(-[a-z0-9]+)*\.v2$`)

// maxKey bounds the key of an annotation, as Kubernetes does: a prefix of 253 bytes, a slash, a name of 63.
const maxKey = 317

const runcType = "io.containerd.runc.v2"

// delegateFields reads the delegate's runtime type, puts the defaults of its family in place, and returns the fields of
// that family's options.
func (c *Config) delegateFields(f *tomlfile.File) []tomlfile.Field[*Config] {
	d, _ := f.Doc["delegate"].(map[string]any)
	v, stated := d["runtime_type"]
	if !stated {
		v = runcType
	}
	name, _ := v.(string)
	switch {
	case name == runcType:
		return runcFields
	case kataType.MatchString(name):
		// containerd's rule: io.containerd.NAME.VERSION is containerd-shim-NAME-VERSION.
		part := strings.Split(name, ".")
		c.Delegate.Binary = "containerd-shim-" + part[2] + "-" + part[3]
		c.Delegate.Runc, c.Delegate.Kata = nil, &KataOptions{}
		c.Supervisor.Placement = PlacementGuest
		return kataFields
	}
	f.Errorf("delegate.runtime_type", tomlfile.Show(v)+" is not a runtime type that can be a delegate",
		diagnostic.Expected(name, []string{runcType, "io.containerd.kata.v2", "io.containerd.kata-<hypervisor>.v2"}))
	// Which options are allowed is not known now: take those of both, so that only the type is complained about.
	c.Delegate.Kata = &KataOptions{}
	return slices.Concat(runcFields, kataFields)
}

var runcFields = []tomlfile.Field[*Config]{
	{Path: "delegate.options.BinaryName", Set: func(c *Config, v any) string {
		s, ok := v.(string)
		if !ok || strings.ContainsRune(s, '/') && !isPath(s) {
			return "an absolute path, or a name without a slash"
		}
		c.Delegate.Runc.BinaryName = s
		return ""
	}},
	{Path: "delegate.options.Root", Set: func(c *Config, v any) string { return optionalPath(&c.Delegate.Runc.Root, v) }},
	{Path: "delegate.options.SystemdCgroup", Set: func(c *Config, v any) string { return tomlfile.Bool(&c.Delegate.Runc.SystemdCgroup, v) }},
	{Path: "delegate.options.ShimCgroup", Set: func(c *Config, v any) string { return text(&c.Delegate.Runc.ShimCgroup, v) }},
	{Path: "delegate.options.NoPivotRoot", Set: func(c *Config, v any) string { return tomlfile.Bool(&c.Delegate.Runc.NoPivotRoot, v) }},
	{Path: "delegate.options.NoNewKeyring", Set: func(c *Config, v any) string { return tomlfile.Bool(&c.Delegate.Runc.NoNewKeyring, v) }},
	{Path: "delegate.options.IoUid", Set: func(c *Config, v any) string { return id(&c.Delegate.Runc.IoUid, v) }},
	{Path: "delegate.options.IoGid", Set: func(c *Config, v any) string { return id(&c.Delegate.Runc.IoGid, v) }},
	{Path: "delegate.options.CriuImagePath", Set: func(c *Config, v any) string { return optionalPath(&c.Delegate.Runc.CriuImagePath, v) }},
	{Path: "delegate.options.CriuWorkPath", Set: func(c *Config, v any) string { return optionalPath(&c.Delegate.Runc.CriuWorkPath, v) }},
}

// kataAnnotation is an annotation of Kata's; patterns are none.
var kataAnnotation = regexp.MustCompile(`^io\.katacontainers\.[A-Za-z0-9][A-Za-z0-9._/-]*$`)

var kataFields = []tomlfile.Field[*Config]{
	{Path: "delegate.allowed_annotations", Set: func(c *Config, v any) string {
		const expected = `an array of whole keys such as "io.katacontainers.config.hypervisor.kernel_params", each once`
		list, ok := v.([]any)
		if !ok {
			return expected
		}
		c.Delegate.Kata.AllowedAnnotations = nil
		for _, item := range list {
			key, _ := item.(string)
			if len(key) > maxKey || !kataAnnotation.MatchString(key) || slices.Contains(c.Delegate.Kata.AllowedAnnotations, key) {
				return expected + "; not " + tomlfile.Show(item)
			}
			c.Delegate.Kata.AllowedAnnotations = append(c.Delegate.Kata.AllowedAnnotations, key)
		}
		return ""
	}},
	{Path: "delegate.options.ConfigPath", Set: func(c *Config, v any) string { return optionalPath(&c.Delegate.Kata.ConfigPath, v) }},
}

// check looks at what no single field shows.
func (c *Config) check(f *tomlfile.File) {
	if c.DefaultProfile == "passthrough" {
		f.Errorf("default_profile", `"passthrough" changes nothing, and only a binding may give it`,
			`expected another profile; bind passthrough to the namespaces "*" to give it to every pod`)
	}
	if c.Floor == "passthrough" {
		f.Errorf("floor", `"passthrough" holds nothing up`, "expected another profile, or no floor")
	}
	if c.Delegate.Runc == nil && c.Supervisor.Placement == PlacementHost {
		f.Errorf("supervisor.placement", `"host" cannot serve the delegate `+c.Delegate.RuntimeType+", whose containers have a kernel of their own",
			`expected "guest"`)
	}
	for _, b := range []struct {
		field, hardField string
		soft, hard       int64
	}{
		{"audit.retention.pod_size", "audit.pod_budget", c.Audit.Retention.PodSize, c.Audit.PodBudget},
		{"audit.retention.node_size", "audit.node_budget", c.Audit.Retention.NodeSize, c.Audit.NodeBudget},
	} {
		if b.soft != 0 && b.hard != 0 && b.soft >= b.hard {
			f.Errorf(b.field, fmt.Sprintf("is not below %s, where containers have to wait", b.hardField), "expected less than "+cgroups.FormatBytes(b.hard))
		}
	}
	dirs := map[string]string{}
	for _, d := range []struct{ field, dir string }{
		{"directories.profiles", c.Directories.Profiles}, {"directories.audit", c.Directories.Audit}, {"directories.state", c.Directories.State},
	} {
		if other, ok := dirs[d.dir]; ok {
			f.Errorf(d.field, tomlfile.Show(d.dir)+" is also "+other, "expected a directory of its own")
		}
		dirs[d.dir] = d.field
	}
}

func text(to *string, v any) string {
	s, ok := v.(string)
	if !ok {
		return "a string"
	}
	*to = s
	return ""
}

func id(to *uint32, v any) string {
	n, ok := v.(int64)
	if !ok || n < 0 || n > math.MaxUint32 {
		return "a number from 0 to 4294967295"
	}
	*to = uint32(n)
	return ""
}

func isPath(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && !strings.ContainsRune(s, 0) && len(s) < 4096
}

func optionalPath(to *string, v any) string {
	s, ok := v.(string)
	if !ok || s != "" && !isPath(s) {
		return "an absolute path without . or .., or an empty string"
	}
	*to = s
	return ""
}

func directory(to *string, v any) string {
	s, _ := v.(string)
	if !isPath(s) || s == "/" {
		return "an absolute path of a directory, without . or .. or a slash at its end"
	}
	*to = s
	return ""
}

// orNone is a duration that may be 0, which means that there is none.
func orNone(to *time.Duration, v any, least time.Duration) string {
	const most = 10 * 365 * 24 * time.Hour
	if v == "0s" {
		*to = 0
		return ""
	}
	if expected := tomlfile.Duration(to, v, least, most); expected != "" {
		return fmt.Sprintf("a duration from %s to %s, such as \"720h\", or \"0s\" for none", least, most)
	}
	return ""
}

func bytes(to *int64, v any, least, most int64, example string) string {
	s, _ := v.(string)
	n, err := cgroups.ParseBytes(s)
	if err != nil || n < least || n > most {
		return fmt.Sprintf("a quantity of bytes from %s to %s, such as %q", cgroups.FormatBytes(least), cgroups.FormatBytes(most), example)
	}
	*to = n
	return ""
}

// budget is a quantity of bytes that may be 0, which means that there is no bound.
func budget(to *int64, v any) string {
	if v == "0" {
		*to = 0
		return ""
	}
	if expected := bytes(to, v, 1<<20, 1<<50, "8Gi"); expected != "" {
		return expected + `, or "0" for no bound`
	}
	return ""
}

// sinkForm is what package audit/checkpoint takes for a sink's name.
var sinkForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func names(to *[]string, v any) string {
	const expected = `an array of sinks' names such as ["siem"]: lower-case letters, digits and -, each once`
	list, ok := v.([]any)
	if !ok {
		return expected
	}
	*to = nil
	for _, item := range list {
		name, _ := item.(string)
		if !sinkForm.MatchString(name) || slices.Contains(*to, name) {
			return expected + "; not " + tomlfile.Show(item)
		}
		*to = append(*to, name)
	}
	return ""
}

// The form of metadata.name in package profile.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

func profileName(to *string, v any) string {
	s, _ := v.(string)
	if !nameForm.MatchString(s) {
		return "the name of a profile: lower-case letters, digits, - and ., at most 63"
	}
	*to = s
	return ""
}
