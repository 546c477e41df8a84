// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/node/doctor/report"
)

// A scenario is one thing that can be found on a node.
type scenario struct {
	name   string
	change func(f *fake)
	want   string // a finding's severity and a part of what is found
	mended bool   // with Mend it is ok afterwards
}

// scenarios are by the check that has to find them. Each check and each severity that it can come to is among them.
var scenarios = map[string][]scenario{
	"kernel": {
		{"no listener", func(f *fake) { f.Kernel.NotifyError = unix.EINVAL }, "fail: gives no seccomp listener: invalid argument", false},
		{"before 5.19", func(f *fake) { f.Kernel.Notify.WaitKillable = false }, "fail: lacks SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", false},
		{"before 6.6", func(f *fake) { f.Kernel.Notify.SyncWakeUp = false }, "warn: does not wake the supervisor", false},
		{"no listener, and none needed", func(f *fake) {
			f.Kernel.NotifyError = unix.EINVAL
			delete(f.inForce, "metsuke")
		}, "ok: containers have kernels of their own", false},
		{"under a listener", func(f *fake) { f.Kernel.NotifyError = errTaken }, "skip: cannot be asked", false},
	},
	"cgroups": {
		{"v1", func(f *fake) { f.cgroupV1("cpu", "memory", "pids") }, "ok: cgroup v1", false},
		{"none", func(f *fake) { f.write("/proc/self/mountinfo", "", 0o444) }, "fail: none is mounted", false},
		{"without memory", func(f *fake) { f.write("/sys/fs/cgroup/cgroup.controllers", "cpu pids\n", 0o444) }, "fail: memory controller is not in", false},
		{"without memory, for guests", func(f *fake) {
			f.write("/sys/fs/cgroup/cgroup.controllers", "cpu pids\n", 0o444)
			delete(f.inForce, "metsuke")
		}, "ok: cgroup v2; limits are put in force in guests", false},
		{"v1 without pids", func(f *fake) { f.cgroupV1("cpu", "memory") }, "fail: pids controller of cgroup v1 is not mounted", false},
	},
	"clock": {
		{"never set", func(f *fake) { f.Kernel.Now = time.Unix(0, 0) }, "fail: 1970-01-01", false},
		{"not synchronised", func(f *fake) { f.Kernel.Synchronised = false }, "warn: not synchronised", false},
		{"not told", func(f *fake) { f.Kernel.ClockError = unix.EPERM }, "skip: operation not permitted", false},
	},
	"containerd": {
		{"silent", func(f *fake) { f.silent = os.ErrNotExist }, "fail: CRI does not answer", false},
		{"CRI-O", func(f *fake) { f.server.Runtime = "cri-o" }, `fail: the runtime is "cri-o"`, false},
		{"too old", func(f *fake) { f.server.Release = "1.6.36" }, "fail: 1.6.36 is too old", false},
		{"1.7", func(f *fake) { f.server.Release = "1.7.35" }, "ok: containerd 1.7.35", false},
		{"of no version", func(f *fake) { f.server.Release = "<unknown>" }, "skip: says nothing", false},
		{"a restart that kills", func(f *fake) { f.KillMode = "control-group" }, "warn: KillMode=control-group", false},
		{"a restart that does not", func(f *fake) { f.KillMode = "process" }, "ok: containerd v2.4.2", false},
		{"not ready", func(f *fake) { f.condition("RuntimeReady") }, "fail: RuntimeReady is false: Because of this", false},
		{"no network", func(f *fake) { f.condition("NetworkReady") }, "warn: NetworkReady is false", false},
		{"deprecations", func(f *fake) { f.condition("ContainerdHasNoDeprecationWarnings") }, "ok: containerd v2.4.2", false},
	},
	"handlers": {
		{"silent", func(f *fake) { f.silent = os.ErrNotExist }, "skip: not known", false},
		{"another form", func(f *fake) { f.inForce = nil }, "skip: not known", false},
		{"none", func(f *fake) { delete(f.inForce, "metsuke"); delete(f.inForce, "metsuke-kata") }, "fail: no handler of Metsuke's", false},
		{"no annotations", func(f *fake) { delete(f.inForce["metsuke"], "PodAnnotations") }, "fail: annotations do not reach Metsuke", false},
		{"other annotations", func(f *fake) { f.inForce["metsuke"]["PodAnnotations"] = []string{"*", "metsuke.dev", "["} }, "fail: annotations do not reach", false},
		{"all annotations", func(f *fake) { f.inForce["metsuke"]["PodAnnotations"] = []string{"*/*"} }, "ok: in force", false},
		{"sandboxer", func(f *fake) { f.inForce["metsuke"]["sandboxer"] = "shim" }, `fail: sandboxer is "shim"`, false},
		{"sandboxer of 1.7", func(f *fake) { f.inForce["metsuke"]["sandboxMode"] = "shim" }, `fail: sandboxer is "shim"`, false},
		{"writable cgroups", func(f *fake) { f.inForce["metsuke"]["cgroupWritable"] = true }, "warn: cgroup_writable is true", false},
		{"runc's options", func(f *fake) { f.inForce["metsuke"]["options"] = map[string]any{"SystemdCgroup": true} }, `fail: options has "SystemdCgroup" and no ConfigPath`, false},
		{"relative ConfigPath", func(f *fake) { f.inForce["metsuke"]["options"] = map[string]any{"ConfigPath": "c.toml"} }, `fail: ConfigPath is "c.toml"`, false},
		{"runc's type", func(f *fake) {
			f.inForce["metsuke"] = map[string]any{"runtimeType": "io.containerd.runc.v2", "runtimePath": shimBinary,
				"PodAnnotations": []string{"metsuke.dev/*"}, "options": map[string]any{"ConfigPath": "/etc/metsuke/kata.toml"}}
		}, "fail: runtime_type is runc's", false},
		{"host devices", func(f *fake) { delete(f.inForce["metsuke-kata"], "privileged_without_host_devices") }, "warn: privileged_without_host_devices", false},
		{"Kata's annotations", func(f *fake) { f.inForce["metsuke-kata"]["PodAnnotations"] = []string{"metsuke.dev/*"} }, "warn: Kata's annotations do not arrive", false},
		{"Kata's snapshotter", func(f *fake) { f.inForce["kata-qemu"]["snapshotter"] = "nydus" }, `warn: snapshotter is "", and that of Kata's own handler kata-qemu is "nydus"`, false},
	},
	"restart": {
		{"no systemd", func(f *fake) { f.Containerd, f.ContainerdError = nil, os.ErrNotExist }, "skip: files are not known", false},
		{"silent", func(f *fake) { f.silent = os.ErrNotExist }, "skip: not known", false},
		{"broken file", func(f *fake) { f.append(main, "[") }, "fail: containerd does not take its files", false},
		{"CRI is off", func(f *fake) { f.append(main, "disabled_plugins = [\"cri\"]\n") }, "fail: CRI is switched off", false},
		{"a new handler", func(f *fake) { delete(f.inForce, "metsuke") }, "warn: written and not in force", false},
		{"an old handler", func(f *fake) { f.remove(dropIn) }, "warn: in force and no longer written", false},
		{"another path", func(f *fake) {
			f.inForce["metsuke-kata"]["options"] = map[string]any{"ConfigPath": "/etc/metsuke/old.toml"}
		}, "warn: options.ConfigPath is /etc/metsuke/old.toml in force, and /etc/metsuke/kata.toml written", false},
	},
	"config": {
		{"unknown fields", func(f *fake) { f.write("/etc/metsuke/config.toml", "version = 1\nflor = \"x\"\n", 0o644) }, "fail: flor: is not a known field", false},
		{"named and absent", func(f *fake) { f.remove("/etc/metsuke/kata.toml") }, "fail: there is no such file", false},
		{"a directory", func(f *fake) { f.mkdir("/etc/metsuke/config.toml", 0o755) }, "fail: is not a regular file", false},
		{"host placement for a VM", func(f *fake) { f.append("/etc/metsuke/kata.toml", "[supervisor]\nplacement = \"host\"\n") }, "fail: whose containers have a kernel of their own", false},
		{"guest placement", func(f *fake) {
			f.write("/etc/metsuke/config.toml", "version = 1\n[supervisor]\nplacement = \"guest\"\n", 0o644)
		}, "ok: supervisors in the container", false},
		{"as asked", func(f *fake) { f.Config = "/etc/metsuke/none.toml" }, "fail: there is no such file", false},
	},
	"shim": {
		{"absent", func(f *fake) { f.remove("/usr/local/bin/" + ShimName) }, "fail: not in containerd's PATH", false},
		{"dangling", func(f *fake) { f.remove(shimBinary) }, "fail: not in containerd's PATH", false},
		{"named and absent", func(f *fake) { f.inForce["metsuke"]["runtimePath"] = "/opt/" + ShimName }, "fail: no such file", false},
		{"named and not executable", func(f *fake) {
			f.write("/opt/"+ShimName, "", 0o644)
			f.inForce["metsuke"]["runtimePath"] = "/opt/" + ShimName
		}, "fail: is not executable: mode 0644", false},
		{"named and a directory", func(f *fake) {
			f.mkdir("/opt/"+ShimName, 0o755)
			f.inForce["metsuke"]["runtimePath"] = "/opt/" + ShimName
		}, "fail: is not a regular file", false},
		{"noexec", func(f *fake) { f.disks["/usr/local"] = func(s *unix.Statfs_t) { s.Flags |= unix.ST_NOEXEC } }, "fail: noexec", false},
		{"does not run", func(f *fake) { delete(f.programs, shimBinary) }, "fail: exec format error", false},
		{"another program", func(f *fake) { f.programs[shimBinary] = "hello" }, `fail: -v says "hello"`, false},
		{"another version", func(f *fake) { f.Version = "v1.1.0" }, "warn: it is v1.0.0, and this is metsuke v1.1.0", false},
	},
	"helper": {
		{"no shim", func(f *fake) { f.remove("/usr/local/bin/" + ShimName) }, "skip: beside the shim", false},
		{"absent", func(f *fake) { f.remove(guest) }, "fail: no such file", false},
		{"configured and absent", func(f *fake) {
			f.write("/etc/metsuke/config.toml", "version = 1\nsupervisor.helper = \"/opt/guest\"\n", 0o644)
		}, "fail: /opt/guest", false},
		{"a directory", func(f *fake) { f.remove(guest); f.mkdir(guest, 0o711) }, "fail: not a regular file", false},
		{"not executable", func(f *fake) { f.chmod(guest, 0o744) }, "fail: containers that are not root cannot execute it: mode 0744", true},
		{"writable", func(f *fake) { f.chmod(guest, 0o733) }, "fail: writable by others than its owner: mode 0733", true},
		{"noexec", func(f *fake) { f.disks["/opt/metsuke"] = func(s *unix.Statfs_t) { s.Flags |= unix.ST_NOEXEC } }, "fail: noexec", false},
		{"somebody's", func(f *fake) { f.give(guest) }, "fail: does not belong to root", false},
		{"Kata's trap", func(f *fake) {
			f.write("/opt/proc/guest", "", 0o711)
			f.append("/etc/metsuke/kata.toml", "[supervisor]\nhelper = \"/opt/proc/guest\"\n")
		}, "fail: has /proc/ or /sys/ in it", false},
		{"does not run", func(f *fake) { delete(f.programs, guest) }, "fail: exec format error", false},
		{"another version", func(f *fake) { f.programs[guest] = "v0.9.0\n" }, "fail: it is v0.9.0, and the shim is v1.0.0", false},
		{"no configuration", func(f *fake) { f.Config = "/none" }, "skip: no configuration that can be read", false},
	},
	"delegate": {
		{"absent", func(f *fake) { f.remove("/usr/bin/containerd-shim-runc-v2") }, "fail: neither in PATH nor beside the shim", false},
		{"beside the shim", func(f *fake) {
			f.remove("/usr/bin/containerd-shim-runc-v2")
			f.write("/opt/metsuke/v1.0.0/containerd-shim-runc-v2", "", 0o755)
			f.programs["/opt/metsuke/v1.0.0/containerd-shim-runc-v2"] = ""
		}, "ok: runc version 1.3.3", false},
		{"not executable", func(f *fake) { f.chmod(kataShim, 0o644) }, "fail: is not executable", false},
		{"Metsuke itself", func(f *fake) {
			f.write("/etc/metsuke/config.toml", "version = 1\ndelegate.binary = \""+shimBinary+"\"\n", 0o644)
		}, "fail: Metsuke's own shim", false},
		{"does not run", func(f *fake) { delete(f.programs, kataShim) }, "fail: exec format error", false},
		{"no runc", func(f *fake) { f.remove("/usr/bin/runc") }, "fail: runc is not in PATH", false},
		{"runc does not run", func(f *fake) { delete(f.programs, "/usr/bin/runc") }, "fail: exec format error", false},
		{"old runc", func(f *fake) { f.programs["/usr/bin/runc"] = "runc version 1.0.3" }, "fail: runc version 1.0.3 is too old", false},
		{"crun", func(f *fake) {
			f.write("/opt/crun", "", 0o755)
			f.programs["/opt/crun"] = "crun version 1.0\n"
			f.write("/etc/metsuke/config.toml", "version = 1\ndelegate.options.BinaryName = \"/opt/crun\"\n", 0o644)
		}, "ok: with crun version 1.0", false},
		{"systemd's cgroups", func(f *fake) {
			f.inForce["runc"]["options"] = map[string]any{"SystemdCgroup": true}
		}, "fail: SystemdCgroup is false, and containerd's own handler runc has true", false},
	},
	"kata": {
		{"no Kata", func(f *fake) { delete(f.inForce, "metsuke-kata") }, "skip: no handler delegates to Kata", false},
		{"absent", func(f *fake) { f.remove(qemuConfig) }, "fail: no such file", false},
		{"no TOML", func(f *fake) { f.append(qemuConfig, "[") }, "fail: is not TOML", false},
		{"none anywhere", func(f *fake) { f.unnamed() }, "fail: no configuration of Kata's is named", false},
		{"the default one", func(f *fake) { f.unnamed(); f.link(qemuConfig, kataDefaults[1]) }, "ok: qemu", false},
		{"a broken drop-in", func(f *fake) { f.kata("[") }, "fail: is not TOML", false},
		{"a drop-in that is none", func(f *fake) { f.write("/opt/kata/share/defaults/kata-containers/config.d/x.bak", "[", 0o644) }, "ok: qemu", false},
		{"debug console", func(f *fake) { f.kata("[agent.kata]\ndebug_console_enabled = true\n") }, "warn: agent.kata.debug_console_enabled is true", false},
		{"debug console by a parameter", func(f *fake) {
			f.kata("[hypervisor.qemu]\nkernel_params = \"agent.log=debug agent.debug_console\"\n")
		}, "warn: kernel_params has agent.debug_console", false},
		{"harmless parameters", func(f *fake) { f.kata("[hypervisor.qemu]\nkernel_params = \"agent.log=debug quiet\"\n") }, "ok: qemu", false},
		{"guest hooks", func(f *fake) { f.kata("[hypervisor.qemu]\nguest_hook_path = \"/usr/share/oci\"\n") }, `warn: guest_hook_path is "/usr/share/oci"`, false},
		{"cgroup v1 in the guest", func(f *fake) {
			f.kata("[hypervisor.qemu]\nkernel_params = \"systemd.unified_cgroup_hierarchy=0\"\n")
		}, "fail: kernel_params has systemd.unified_cgroup_hierarchy=0", false},
		{"confidential", func(f *fake) { f.kata("[hypervisor.qemu]\nconfidential_guest = true\n") }, "warn: confidential_guest is true", false},
		{"dynamic size", func(f *fake) { f.kata("[runtime]\nstatic_sandbox_resource_mgmt = false\n") }, "ok: grows with the limits", false},
		{"no kernel", func(f *fake) { f.remove("/opt/kata/vmlinux") }, "fail: hypervisor.qemu.kernel: open /opt/kata/vmlinux: no such file", false},
		{"no KVM", func(f *fake) { f.remove("/dev/kvm") }, "fail: no /dev/kvm", false},
		{"no KVM and a remote hypervisor", func(f *fake) {
			f.remove("/dev/kvm")
			f.write(qemuConfig, "[hypervisor.remote]\nremote_hypervisor_socket = \"/run/s\"\n", 0o644)
		}, "ok: remote", false},
		{"no syslog", func(f *fake) { f.remove("/dev/log") }, "fail: no syslog socket", false},
		{"no syslog and runtime-rs", func(f *fake) {
			f.remove("/dev/log")
			f.programs[kataShim] = "Kata Containers containerd shim (Rust): 3.20.0\n"
		}, "ok: qemu", false},
		{"allowed annotations", func(f *fake) {
			f.append("/etc/metsuke/kata.toml", "[delegate.x]\n")
			f.write("/etc/metsuke/kata.toml", "version = 1\n[delegate]\nruntime_type = \"io.containerd.kata.v2\"\nbinary = \""+kataShim+"\"\n"+
				"allowed_annotations = [\"io.katacontainers.config.hypervisor.kernel_params\"]\noptions.ConfigPath = \""+qemuConfig+"\"\n", 0o644)
		}, "warn: delegate.allowed_annotations has io.katacontainers.config.hypervisor.kernel_params", false},
	},
	"profiles": {
		{"a fault", func(f *fake) { f.profile("limits: {pid: 5}") }, "fail: spec.limits.pid: is not a known field", false},
		{"no such default", func(f *fake) {
			f.write("/etc/metsuke/config.toml", "version = 1\ndefault_profile = \"coder\"\n", 0o644)
		}, "fail: default_profile", false},
		{"no such floor", func(f *fake) { f.write("/etc/metsuke/config.toml", "version = 1\nfloor = \"ground\"\n", 0o644) }, "fail: floor", false},
		{"named and absent", func(f *fake) {
			f.write("/etc/metsuke/config.toml", "version = 1\ndirectories.profiles = \"/etc/none\"\n", 0o644)
		}, "fail: /etc/none", false},
		{"no directory", func(f *fake) { f.write("/etc/metsuke/profiles.d", "", 0o644) }, "fail: is not a directory", false},
		{"a limit that Kata has not", func(f *fake) { f.profile("limits: {cpuset: \"0\"}") }, "fail: profile coder", false},
		{"a limit that the node has not", func(f *fake) {
			f.cgroupV1("cpu", "memory", "pids")
			f.profile("limits: {memory: 1Gi, memoryHigh: 512Mi}")
		}, "fail: cgroup v1 has no memory.high", false},
		{"without effect", func(f *fake) {
			f.profile("limits: {pids: 5000}")
		}, "warn: spec.limits.pids", false},
		{"of one's own", func(f *fake) { f.profile("limits: {pids: 64}") }, "ok: your own profiles: 1", false},
	},
	"directories": {
		{"not there", func(f *fake) { f.remove("/var/log/metsuke") }, "ok: not there yet", true},
		{"a file", func(f *fake) { f.remove("/run/metsuke"); f.write("/run/metsuke", "", 0o600) }, "fail: not a directory", false},
		{"below a file", func(f *fake) { f.remove("/var/log/metsuke"); f.write("/var/log/metsuke", "", 0o600) }, "fail: not a directory", false},
		{"somebody's", func(f *fake) { f.give("/var/log/metsuke/audit") }, "fail: does not belong to root", false},
		{"writable", func(f *fake) { f.chmod("/var/log/metsuke/audit", 0o777) }, "fail: writable by others: mode 0777", true},
		{"read-only", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Flags |= unix.ST_RDONLY } }, "fail: mounted read-only", false},
		{"full", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Bavail = 1 } }, "fail: 0 MiB and", false},
		{"no inodes", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Ffree = 1 } }, "fail: and 1 inodes", false},
		{"nearly full", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Bavail = 100 << 8 } }, "warn: 100 MiB and", false},
		{"few inodes", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Ffree = 1000 } }, "warn: and 1000 inodes", false},
		{"no inodes to count", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Files, s.Ffree = 0, 0 } }, "ok: 4096 MiB free", false},
		{"streams in memory", func(f *fake) { f.disks["/var"] = func(s *unix.Statfs_t) { s.Type = unix.TMPFS_MAGIC } }, "warn: it is in memory", false},
		{"state on a disk", func(f *fake) { f.disks["/run"] = func(s *unix.Statfs_t) { s.Type = unix.EXT4_SUPER_MAGIC } }, "warn: not on a tmpfs", false},
		{"a long path", func(f *fake) {
			f.write("/etc/metsuke/config.toml", "version = 1\ndirectories.state = \"/run/"+strings.Repeat("x", 100)+"\"\n", 0o644)
		}, "fail: its path has 105 bytes", false},
		{"no configuration", func(f *fake) { f.Config = "/none" }, "skip: no configuration that can be read", false},
	},
	"leftovers": {
		{"silent", func(f *fake) { f.silent = os.ErrNotExist }, "skip: not known", false},
		{"a pod's state", func(f *fake) { f.state(1, "k8s.io", "gone", time.Hour) }, "warn: is of pod gone", false},
		{"a living pod's", func(f *fake) {
			f.state(1, "k8s.io", "there", time.Hour)
			f.server.AddPods(&runtimeapi.PodSandbox{Id: "there"})
		}, "ok: none", false},
		{"one that is starting", func(f *fake) { f.state(1, "k8s.io", "gone", time.Minute) }, "ok: none", false},
		{"another namespace's", func(f *fake) { f.state(1, "moby", "gone", time.Hour) }, "ok: none", false},
		{"an old canary", func(f *fake) { f.server.AddPods(f.oldCanary("metsuke", time.Hour)) }, "warn: canary u of a doctor that was killed", true},
		{"a young canary", func(f *fake) { f.server.AddPods(f.oldCanary("metsuke", time.Minute)) }, "ok: none", false},
		{"somebody's namespace", func(f *fake) { f.server.AddPods(f.oldCanary("runc", time.Hour)) }, "ok: none", false},
	},
}

func TestChecks(t *testing.T) {
	var all strings.Builder
	for _, c := range checks {
		if c.Name == "canary" {
			continue // canary_test.go
		}
		if len(scenarios[c.Name]) == 0 {
			t.Errorf("no scenario for %s", c.Name)
		}
		for _, sc := range scenarios[c.Name] {
			t.Run(c.Name+"/"+sc.name, func(t *testing.T) {
				f := newFake(t)
				sc.change(f)
				r := f.look(Options{Checks: []string{c.Name}})
				if !has(r, sc.want) {
					t.Errorf("not found: %s\n%s", sc.want, findings(f, r))
				}
				whole(t, r)
				fmt.Fprintf(&all, "## %s: %s\n%s\n", c.Name, sc.name, findings(f, r))
				repaired := f.look(Options{Checks: []string{c.Name}, Mend: true})
				if mended := len(repaired.Repairs) > 0; mended != sc.mended || mended && (!repaired.Healthy() || repaired.Count(Warn) > 0) {
					t.Errorf("mended: %v\n%s", repaired.Repairs, findings(f, repaired))
				}
			})
		}
	}
	if !t.Failed() {
		golden(t, "findings.txt", all.String())
	}
}

// whole checks that a report leaves nobody alone: what is wrong has its consequence and its fix.
func whole(t *testing.T, r *Report) {
	t.Helper()
	for _, f := range r.Findings {
		wrong := f.Severity == Warn || f.Severity == Fail
		if f.Found == "" || f.Check == "" || wrong && (f.Breaks == "" || f.Fix == "") {
			t.Errorf("not whole: %+v", f)
		}
	}
}

func has(r *Report, want string) bool {
	severity, text, _ := strings.Cut(want, ": ")
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return string(f.Severity) == severity && strings.Contains(f.Subject+": "+f.Found, text)
	})
}

// findings are the findings that are not ok, or else the first that is.
func findings(f *fake, r *Report) string {
	var b strings.Builder
	for i, x := range r.Findings {
		if x.Severity == OK && (r.Count(OK) < len(r.Findings) || i > 0) {
			continue
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", x.Severity, report.Heading(x.Check, x.Subject), x.Found)
		if x.Severity == Warn || x.Severity == Fail {
			x.Detail(&b)
		}
	}
	return strings.ReplaceAll(b.String(), f.dir, "")
}

// Every severity that a check can come to has a scenario; which those are, the source of the checks says.
func TestSeverities(t *testing.T) {
	for name, want := range map[string]string{
		"kernel": "fail ok skip warn", "cgroups": "fail ok", "clock": "fail skip warn", "containerd": "fail ok skip warn", "handlers": "fail ok skip warn",
		"restart": "fail skip warn", "config": "fail ok", "shim": "fail warn", "helper": "fail skip", "delegate": "fail ok", "kata": "fail ok skip warn",
		"profiles": "fail ok warn", "directories": "fail ok skip warn", "leftovers": "ok skip warn",
	} {
		var have []string
		for _, sc := range scenarios[name] {
			severity, _, _ := strings.Cut(sc.want, ": ")
			have = append(have, severity)
		}
		slices.Sort(have)
		if got := strings.Join(slices.Compact(have), " "); got != want {
			t.Errorf("%s has scenarios for %q, want %q", name, got, want)
		}
	}
}
