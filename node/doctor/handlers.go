// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"metsuke.dev/metsuke/profile"
)

func checkHandlers(_ context.Context, s *survey) (found []Finding) {
	if s.handlersErr != nil {
		return []Finding{skip("which handlers are in force is not known: %v", s.handlersErr)}
	}
	const install = "metsuke node install, or as docs/node-guide.md says; then systemctl restart containerd"
	for _, name := range s.wanted {
		if h, there := s.inForce[name]; !there {
			found = append(found, fail("no such handler is in force", "pods whose RuntimeClass names it do not start", install).of(name))
		} else if !isOurs(h) {
			found = append(found, fail("the handler is "+h.RuntimeType+", not Metsuke",
				"pods that have it are not supervised",
				install).of(name))
		}
	}
	for _, h := range s.handlers {
		wrong := judgeHandler(s, h)
		if len(wrong) == 0 {
			wrong = []Finding{ok("%s", describe(h))}
		}
		found = append(found, about(h.name, wrong)...)
	}
	if len(found) == 0 {
		return []Finding{fail("no handler of Metsuke's is in force", "no pod of this node is supervised", install)}
	}
	return found
}

func describe(h handler) string {
	if h.setup.named {
		return "in force, with " + h.setup.path
	}
	return "in force"
}

// judgeHandler looks at one handler: what docs/node-guide.md asks of it, and the traps that it names.
func judgeHandler(s *survey, h handler) (found []Finding) {
	add := func(f Finding) { found = append(found, f) }
	table := "in the table of containerd's runtimes." + h.name + ", then systemctl restart containerd"
	if !passes(h.PodAnnotations, profile.Annotation) {
		add(fail(fmt.Sprintf("pods' annotations do not reach Metsuke: pod_annotations is %q", h.PodAnnotations),
			"a pod's "+profile.Annotation+" is passed over without a word: it gets its namespace's default profile",
			`pod_annotations = ["metsuke.dev/*"] `+table))
	}
	if h.Sandboxer == "shim" {
		add(fail(`sandboxer is "shim"`,
			"there is no specification of the sandbox, and so nothing that Metsuke could size the VM by, and no configuration for Kata's runtime-rs",
			"take sandboxer out, "+table))
	}
	if h.CgroupWritable {
		add(warn("cgroup_writable is true", "nothing comes of it, but for pods under passthrough: these can lift their own limits",
			"take cgroup_writable out, "+table))
	}
	for _, key := range slices.Sorted(maps.Keys(h.Options)) {
		if key != "ConfigPath" && key != "TypeUrl" && configPath(h.Handler) == "" {
			add(fail(fmt.Sprintf("options has %q and no ConfigPath", key),
				"no pod starts: Metsuke takes the path of a configuration, and no options in containerd's files",
				`options = {ConfigPath = "/etc/metsuke/config.toml"} `+table))
			break
		}
	}
	if p := configPath(h.Handler); p != "" && !path.IsAbs(p) {
		add(fail(fmt.Sprintf("ConfigPath is %q, not an absolute path", p),
			"no pod starts",
			`options = {ConfigPath = "/etc/metsuke/config.toml"} `+table))
	}
	if h.RuntimeType == "io.containerd.runc.v2" && len(h.Options) > 0 {
		add(fail("runtime_type is runc's, and there are options", "no pod starts: containerd hands them on as runc's own",
			fmt.Sprintf("runtime_type = %q ", RuntimeType)+table))
	}
	if h.setup.config != nil && h.setup.traits().Sandboxed {
		found = append(found, judgeVMHandler(s, h, table)...)
	}
	return found
}

// judgeVMHandler looks at what matters where the delegate is Kata.
func judgeVMHandler(s *survey, h handler, table string) (found []Finding) {
	if !h.PrivilegedWithoutHostDevices {
		found = append(found, warn("privileged_without_host_devices is not set",
			"a privileged pod takes all devices of the node with it into its VM, and may not start for it",
			"privileged_without_host_devices = true "+table))
	}
	if !passes(h.PodAnnotations, "io.katacontainers.config.hypervisor.default_vcpus") {
		found = append(found, warn("Kata's annotations do not arrive: pod_annotations lacks \"io.katacontainers.*\"",
			"a pod cannot say how large its VM is to be", `pod_annotations = ["metsuke.dev/*", "io.katacontainers.*"] `+table))
	}
	for _, name := range slices.Sorted(maps.Keys(s.inForce)) {
		other := s.inForce[name]
		same := !isOurs(other) && configPath(other) != "" && configPath(other) == h.setup.config.Delegate.Kata.ConfigPath
		if same && other.Snapshotter != h.Snapshotter {
			found = append(found, warn(fmt.Sprintf("snapshotter is %q, and that of Kata's own handler %s is %q", h.Snapshotter, name, other.Snapshotter),
				"images are unpacked in a form that this Kata may not be able to start", fmt.Sprintf("snapshotter = %q ", other.Snapshotter)+table))
		}
	}
	return found
}

// passes says whether containerd hands an annotation on (2.x: internal/cri/util, PassthroughAnnotations).
func passes(patterns []string, annotation string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, annotation)
		return ok && err == nil
	})
}
