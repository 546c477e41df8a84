// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/internal/kata"
)

func TestRefuseAnnotations(t *testing.T) {
	const kernelParams = "io.katacontainers.config.hypervisor.kernel_params"
	annotated := func(t *testing.T, key string) *Spec {
		t.Helper()
		raw, err := marshal(map[string]string{"io.kubernetes.cri.sandbox-id": "s", key: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return spec(t, `{"annotations":`+string(raw)+`}`)
	}
	for _, key := range append([]string{"metsuke.dev/profile", "sgx.intel.com/epc", "io.katacontainers", "example.com/io.katacontainers.x"}, kata.Harmless...) {
		if err := RefuseAnnotations(nil)(annotated(t, key)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	// From Kata's documentation and source, by what they would undo.
	for _, key := range []string{
		kernelParams, // a debug console, agent.*, lsm=
		"io.katacontainers.config.hypervisor.kernel_verity_params",
		"io.katacontainers.config.hypervisor.guest_hook_path",
		"io.katacontainers.config.hypervisor.cc_init_data",
		"io.katacontainers.config.hypervisor.kernel", "io.katacontainers.config.hypervisor.image", "io.katacontainers.config.hypervisor.initrd",
		"io.katacontainers.config.hypervisor.path", "io.katacontainers.config.hypervisor.virtio_fs_extra_args",
		"io.katacontainers.config.hypervisor.shared_fs", "io.katacontainers.config.hypervisor.enable_guest_swap",
		"io.katacontainers.config.agent.policy", "io.katacontainers.config.agent.kernel_modules", "io.katacontainers.config.agent.enable_tracing",
		"io.katacontainers.config.agent.container_pipe_size", "io.katacontainers.config.agent.debug_console_enabled",
		"io.katacontainers.config.runtime.disable_guest_seccomp", "io.katacontainers.config.runtime.sandbox_cgroup_only",
		"io.katacontainers.config.runtime.hypervisor_name", "io.katacontainers.config.runtime.agent_name",
		"io.katacontainers.config_path", "io.katacontainers.container.resource.swap_in_bytes", "io.katacontainers.fs-opt.is-layer",
		"io.katacontainers.pkg.oci.container_type", "io.katacontainers.of.tomorrow", "io.katacontainers.",
		"io.katacontainers.config.hypervisor.default_vcpus.x", "io.katacontainers.config.hypervisor.Default_vcpus",
	} {
		s := annotated(t, key)
		if err := RefuseAnnotations([]string{"io.katacontainers.config", "io.katacontainers.*"})(s); err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "delegate.allowed_annotations") {
			t.Errorf("%s: %v", key, err)
		}
		if err := RefuseAnnotations([]string{"x", key})(s); err != nil {
			t.Errorf("%s, allowed: %v", key, err)
		}
	}
	for _, key := range []string{"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID", "io.kubernetes.docker.type", "io.kubernetes.sandbox.id"} {
		if err := RefuseAnnotations([]string{key})(annotated(t, key)); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	for _, in := range []string{`{}`, `{"annotations":null}`} {
		if err := RefuseAnnotations(nil)(spec(t, in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	if err := RefuseAnnotations(nil)(spec(t, `{"Annotations":{"`+kernelParams+`":"x"}}`)); err == nil {
		t.Error("a member in another case was overlooked")
	}
}

func TestRefuseGuestFiles(t *testing.T) {
	for in, refused := range map[string]bool{
		`[]`: false,
		`[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup"}]`: false,
		`[{"destination":"/a","type":"bind","source":"/system"},{"destination":"/b","type":"bind","source":"/data/sysx/procs"}]`:     false,
		`[{"destination":"/b","type":"bind","source":"/data/sys/x"}]`:                                                                true,
		`[{"destination":"/b","type":"bind","source":"/run/kata-containers/sandbox/ephemeral/v/proc/x"}]`:                            true,
		`[{"destination":"/b","type":"bind","source":"/data/proc"}]`:                                                                 true,
		`[{"destination":"/a","type":"bind","source":"/sys"}]`:                                                                       true,
		`[{"destination":"/a","type":"bind","source":"/sys/fs/cgroup"}]`:                                                             true,
		`[{"destination":"/a","source":"/data/../sys/fs/cgroup/","options":["rbind","ro"]}]`:                                         true,
		`[{"destination":"/a","type":"none","source":"/proc/sys","options":["bind"]}]`:                                               true,
		`[{"destination":"/ok","type":"bind","source":"/etc"},{"destination":"/a","type":"bind","source":"/proc"}]`:                  true,
		// Where Kata's runtimes look at the path before ".." is resolved, or after.
		`[{"destination":"/a","type":"bind","source":"/proc/../run"}]`:        true,
		`[{"destination":"/a","type":"bind","source":"/data/sys/../../run"}]`: true,
		`[{"destination":"/a","type":"bind","source":"/data/.."}]`:            true,
		`[{"destination":"/a","type":"bind","source":"/data/..x/"}]`:          false,
		`[{"destination":"/a","type":"tmpfs","source":"../x"}]`:               false,
		// They decide by what the node has at the destination, whatever the source.
		`[{"destination":"/dev","type":"bind","source":"/"}]`:                                                                   true,
		`[{"destination":"/dev/","type":"none","source":"/","options":["rbind"]}]`:                                              true,
		`[{"destination":"dev/pts","type":"bind","source":"/run"}]`:                                                             true,
		`[{"destination":"/dev/null","type":"bind","source":"/dev/null"}]`:                                                      true,
		`[{"destination":"/dev/shm","type":"bind","source":"/run/shm"}]`:                                                        false,
		`[{"destination":"/dev/shm/../pts","type":"bind","source":"/run"}]`:                                                     true,
		`[{"destination":"/dev/termination-log-of-a-test","type":"bind","source":"/etc/hostname"}]`:                             false,
		`[{"destination":"/device","type":"bind","source":"/run"}]`:                                                             false,
		`[{"destination":"/dev","type":"tmpfs","source":"tmpfs"},{"destination":"/dev/pts","type":"devpts","source":"devpts"}]`: false,
	} {
		if err := RefuseGuestFiles()(spec(t, `{"mounts":`+in+`}`)); (err != nil) != refused {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestRefuseOwnFiles(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"log/metsuke/audit", "log/else", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "log/metsuke", "here": ".", "run": "state"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	own := []string{dir + "/log/metsuke/audit", dir + "/run/later"}
	for source, refused := range map[string]bool{
		"/log/metsuke/audit": true, "/log/metsuke/audit/": true, "/log/metsuke/audit/new/x": true, "/log/metsuke": true, "/log": true, "": true,
		"/link": true, "/link/audit": true, "/here/log": true, "/log/else/..": true, "/run": true, "/state": true, "/state/later": true,
		"/log/else": false, "/log/metsuke/auditor": false, "/log/metsuke/other": false, "/state/other": false, "/nowhere": false,
	} {
		for _, options := range []string{`"bind"`, `"rbind","ro"`} {
			err := RefuseOwnFiles(own)(spec(t, `{"mounts":[{"destination":"/a","source":"`+dir+source+`","options":[`+options+`]}]}`))
			if (err != nil) != refused {
				t.Errorf("%s, %s: %v", source, options, err)
			}
		}
	}
	for _, mounts := range []string{`[]`, `[{"destination":"/a","type":"tmpfs","source":"/"}]`} {
		if err := RefuseOwnFiles(own)(spec(t, `{"mounts":`+mounts+`}`)); err != nil {
			t.Errorf("%s: %v", mounts, err)
		}
	}
	if err := RefuseOwnFiles(own)(spec(t, `{"mounts":[{"destination":"/a","type":"bind","source":"/"}]}`)); err == nil {
		t.Error("the node's root is let through")
	}
}

func TestRefuseStartHooks(t *testing.T) {
	for in, refused := range map[string]bool{
		`{}`:             false,
		`{"hooks":null}`: false,
		`{"hooks":{"startContainer":[],"createRuntime":[{"path":"/x"}],"createContainer":[{"path":"/x"}],"poststop":[{"path":"/x"}]}}`: false,
		`{"hooks":{"startContainer":[{"path":"/x"}]}}`: true,
		`{"hooks":{"StartContainer":[{"path":"/x"}]}}`: true,
		`{"hooks":[]}`: true,
	} {
		if err := RefuseStartHooks()(spec(t, in)); (err != nil) != refused {
			t.Errorf("%s: %v", in, err)
		}
	}
}
