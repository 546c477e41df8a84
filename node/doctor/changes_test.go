// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/seccomp/notify"
)

// Changes of a fake node that several scenarios make.

var errTaken = notify.ErrTaken

// cgroupV1 mounts these controllers.
func (f *fake) cgroupV1(controllers ...string) {
	var mounts strings.Builder
	for i, name := range controllers {
		fmt.Fprintf(&mounts, "%d 23 0:%d / /sys/fs/cgroup/%s rw - cgroup cgroup rw,%s\n", 30+i, 40+i, name, name)
		for _, file := range []string{"cpu.cfs_quota_us", "cpu.shares", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"} {
			f.write("/sys/fs/cgroup/"+name+"/"+file, "", 0o644)
		}
	}
	f.write("/proc/self/mountinfo", mounts.String(), 0o444)
}

// condition makes one of containerd's false.
func (f *fake) condition(name string) {
	f.server.Conditions = []*runtimeapi.RuntimeCondition{{Type: name, Reason: "Because", Message: "of this"}}
}

// kata puts a drop-in beside Kata's configuration.
func (f *fake) kata(text string) {
	f.write(filepath.Dir(qemuConfig)+"/config.d/50-test.toml", text, 0o644)
}

// unnamed takes Kata's configuration out of ours.
func (f *fake) unnamed() {
	f.write("/etc/metsuke/kata.toml", "version = 1\n[delegate]\nruntime_type = \"io.containerd.kata.v2\"\nbinary = \""+kataShim+"\"\n", 0o644)
}

// profile writes one with this specification beside its parent.
func (f *fake) profile(spec string) {
	f.write("/etc/metsuke/profiles.d/team.yaml", "apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: coder}\nspec:\n  extends: [baseline]\n  "+spec+"\n", 0o644)
}

// binding gives a profile to canaries.
func (f *fake) binding(profile string) {
	f.write("/etc/metsuke/profiles.d/binding.yaml", "apiVersion: metsuke.dev/v1alpha1\nkind: ProfileBinding\nmetadata: {name: canaries}\n"+
		"spec: {namespaces: ["+CanaryNamespace+"], default: "+profile+"}\n", 0o644)
}

// give gives a file to somebody who is not root.
func (f *fake) give(name string) {
	if os.Geteuid() != 0 {
		f.t.Skip("only root can give files away")
	}
	f.must(os.Chown(f.path(name), 1000, 1000))
}

// state leaves the directory of a pod.
func (f *fake) state(key int, namespace, id string, age time.Duration) {
	dir := fmt.Sprintf("/run/metsuke/%032x", key)
	f.write(dir+"/shim.json", fmt.Sprintf(`{"version":1,"namespace":%q,"id":%q}`, namespace, id), 0o600)
	f.must(os.Chtimes(f.path(dir), now.Add(-age), now.Add(-age)))
}

func (f *fake) oldCanary(handler string, age time.Duration) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Id: "c", Metadata: &runtimeapi.PodSandboxMetadata{Namespace: CanaryNamespace, Name: canaryName, Uid: "u"},
		RuntimeHandler: handler, CreatedAt: now.Add(-age).UnixNano(),
	}
}
