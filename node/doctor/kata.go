// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"metsuke.dev/metsuke/internal/tomlplace"
)

// What Kata reads when nobody names a file (src/runtime/Makefile, DEFAULT_CONFIG_PATH and SYSCONFIG).
var kataDefaults = []string{"/etc/kata-containers/configuration.toml", "/usr/share/defaults/kata-containers/configuration.toml"}

func checkKata(ctx context.Context, s *survey) (found []Finding) {
	found = s.each(func(u *setup) []Finding {
		if !u.traits().Sandboxed {
			return nil
		}
		return judgeKata(ctx, s, u)
	})
	if len(found) == 0 {
		return []Finding{skip("no handler delegates to Kata")}
	}
	return found
}

func judgeKata(ctx context.Context, s *survey, u *setup) (found []Finding) {
	file := u.config.Delegate.Kata.ConfigPath
	if file == "" {
		i := slices.IndexFunc(kataDefaults, func(name string) bool { _, err := s.Tree.Stat(name); return err == nil })
		if i < 0 {
			return []Finding{fail("no configuration of Kata's is named, and there is none where Kata looks", noPod,
				"[delegate.options] ConfigPath, as in kata-deploy's entry for containerd").at(u.path, 0)}
		}
		file = kataDefaults[i]
	}
	k, err := readKata(s, file)
	if err != nil {
		return []Finding{fail(err.Error(), noPod, "correct it, or name another: delegate.options.ConfigPath").of(file)}
	}
	found = slices.Concat(about(file, append(k.past(), k.needs(s)...)), judgeSyslog(ctx, s, u), judgeAllowed(u))
	if len(found) == 0 {
		return []Finding{ok("%s", k.describe()).of(file)}
	}
	return found
}

// kataConfig is Kata's configuration with its drop-ins, by the paths of its keys.
type kataConfig map[string]kataValue

type kataValue struct {
	value any
	file  string
	line  int
}

// readKata reads a configuration of Kata's, and what is in config.d beside it once links are followed, in the order of the names: later
// files win (Go: pkg/katautils/config.go, updateFromDropIn; runtime-rs: kata-types/src/config/drop_in.rs).
func readKata(s *survey, file string) (kataConfig, error) {
	file, err := s.Tree.Follow(file)
	if err != nil {
		return nil, err
	}
	k := kataConfig{}
	if err := k.read(s, file); err != nil {
		return nil, err
	}
	dir := path.Join(path.Dir(file), "config.d")
	entries, err := s.Tree.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if path.Ext(e.Name()) != ".toml" {
			continue
		}
		if err := k.read(s, path.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k kataConfig) read(s *survey, file string) error {
	data, err := s.Tree.ReadFile(file)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := toml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s is not TOML: %w", file, err)
	}
	k.add("", doc, file, tomlplace.Of(data))
	return nil
}

func (k kataConfig) add(prefix string, table map[string]any, file string, places map[string]tomlplace.Place) {
	for key, v := range table {
		at := prefix + key
		if inner, isTable := v.(map[string]any); isTable {
			k.add(at+".", inner, file, places)
			continue
		}
		k[at] = kataValue{v, file, places[at].Line}
	}
}

// each returns the values of a key in every table of a kind ("hypervisor", "agent"), by their paths.
func (k kataConfig) each(kind, key string) (paths []string) {
	for _, at := range slices.Sorted(maps.Keys(k)) {
		if part := strings.Split(at, "."); len(part) == 3 && part[0] == kind && part[2] == key {
			paths = append(paths, at)
		}
	}
	return paths
}

func (k kataConfig) text(at string) string { s, _ := k[at].value.(string); return s }

func (k kataConfig) hypervisors() (names []string) {
	for at := range k {
		if part := strings.Split(at, "."); part[0] == "hypervisor" && len(part) == 3 && !slices.Contains(names, part[1]) {
			names = append(names, part[1])
		}
	}
	slices.Sort(names)
	return names
}

func (k kataConfig) describe() string {
	size := "the VM grows with the limits of its containers"
	if k["runtime.static_sandbox_resource_mgmt"].value == true {
		size = "the VM has its size from the start"
	}
	return strings.Join(k.hypervisors(), ", ") + ", " + size
}

// harmlessParams are the parameters of the agent (src/agent/src/config.rs) that change what it says and how long it waits.
var harmlessParams = []string{"agent.log", "agent.log_vport", "agent.hotplug_timeout", "agent.cdi_timeout", "agent.container_pipe_size"}

// past is what runs in the guest and no filter of Metsuke's holds: the operator's to set, so it is only said.
func (k kataConfig) past() (found []Finding) {
	add := func(at, what, breaks string) {
		v := k[at]
		found = append(found, warn(at+" "+what, breaks, "take it out, unless you mean it").at(v.file, v.line))
	}
	for _, at := range k.each("agent", "debug_console_enabled") {
		if k[at].value == true {
			add(at, "is true", "whoever is root on the node has a shell in every guest, which no filter holds and no stream shows")
		}
	}
	for _, at := range k.each("hypervisor", "guest_hook_path") {
		if k.text(at) != "" {
			add(at, fmt.Sprintf("is %q", k.text(at)), "programs of the guest's image run beside containers as root, which no filter holds")
		}
	}
	for _, at := range k.each("hypervisor", "kernel_params") {
		for param := range strings.FieldsSeq(k.text(at)) {
			switch name, value, _ := strings.Cut(param, "="); {
			case name == "systemd.unified_cgroup_hierarchy" && (value == "0" || value == "false" || value == "no"):
				v := k[at]
				found = append(found, fail(at+" has "+param,
					"the guest has cgroup v1: limits cannot be put in force, and no container starts",
					"take "+param+" out").at(v.file, v.line))
			case strings.HasPrefix(name, "agent.") && !slices.Contains(harmlessParams, name):
				add(at, "has "+param, "it can have the guest's agent run things that no filter holds")
			}
		}
	}
	for _, at := range k.each("hypervisor", "confidential_guest") {
		if k[at].value == true {
			add(at, "is true", "with a generated policy in the guest no container starts: it does not allow what Metsuke brings in")
		}
	}
	return found
}

// needs is what the configuration names and the node lacks.
func (k kataConfig) needs(s *survey) (found []Finding) {
	for _, key := range []string{"path", "kernel", "image", "initrd", "virtio_fs_daemon"} {
		for _, at := range k.each("hypervisor", key) {
			if file := k.text(at); file != "" {
				if _, err := s.Tree.Stat(file); err != nil {
					v := k[at]
					found = append(found, fail(at+": "+err.Error(),
						"no VM starts",
						"install Kata's files, or correct the path").at(v.file, v.line))
				}
			}
		}
	}
	if slices.Equal(k.hypervisors(), []string{"remote"}) {
		return found
	}
	if _, err := s.Tree.Stat("/dev/kvm"); err != nil {
		found = append(found, fail("the node has no /dev/kvm",
			"no VM starts",
			"modprobe kvm_intel or kvm_amd; on a virtual node, have nested virtualisation switched on"))
	}
	return found
}

// judgeSyslog looks for what Kata's Go runtime does not start without.
func judgeSyslog(ctx context.Context, s *survey, u *setup) []Finding {
	out, err := s.Run(ctx, s.delegateOf(u), "--version")
	if err != nil || !strings.Contains(string(out), "(Golang)") {
		return nil // what is wrong with the delegate, its own check says
	}
	for _, socket := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} { // log/syslog, unixSyslog
		if _, err := s.Tree.Stat(socket); err == nil {
			return nil
		}
	}
	return []Finding{fail("the node has no syslog socket (/dev/log)", `no pod starts: Kata's Go runtime says "Unix syslog delivery error"`,
		"systemctl start systemd-journald-dev-log.socket, or run a syslog daemon")}
}

// judgeAllowed names the annotations that pods may set although they can undo what Metsuke puts in force.
func judgeAllowed(u *setup) (found []Finding) {
	for _, key := range u.config.Delegate.Kata.AllowedAnnotations {
		found = append(found, warn("delegate.allowed_annotations has "+key,
			"any pod may set it, and it can change what Metsuke relies on in the guest",
			"take it out, unless you mean it").at(u.path, 0))
	}
	return found
}
