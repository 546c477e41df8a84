// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"strings"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestNamespaces(t *testing.T) {
	all := []string{"ipc", "uts", "net", "pid", "cgroup", "mnt"}
	look := func(req *grpc.CreateContainerRequest) (namespaces []string, hostname string) {
		id := start(t, req)
		namespaces = strings.Fields(output(t, id, append([]string{"namespaces"}, all...)...))
		return namespaces, output(t, id, "cat", "/proc/sys/kernel/hostname")
	}
	first, name := look(request(newID(), "sleep"))
	second, _ := look(request(newID(), "sleep"))
	if name != "guest" {
		t.Errorf("the host name is %q, want the sandbox's", name)
	}
	for i, kind := range all {
		if shared := first[i] == second[i]; shared != (i < 3) {
			t.Errorf("two containers share their %s namespace: %v", kind, shared)
		}
	}
}

// Containers that ask for the sandbox's pid namespace are in that of the sandbox's first container.
func TestSandboxPidns(t *testing.T) {
	req := request(newID(), "sleep")
	req.SandboxPidns = true
	id := start(t, req)
	if a, b := output(t, sandboxID, "namespaces", "pid"), output(t, id, "namespaces", "pid"); a != b {
		t.Errorf("pid namespaces %s and %s are two", a, b)
	}
	// SIGKILL to all is to those in the container's own cgroup, not to those below.
	eid := spawn(t, id, process("below", "/cgroup/child"))
	readUntil(t, id, eid, "ready")
	kill(t, id, "", unix.SIGKILL)
	if code := wait(t, id, id); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
	writeStdin(t, id, eid, "still here")
	readUntil(t, id, eid, "still here")
}

// An exec is in the namespaces that the container was made with, wherever its first process has gone.
func TestExecAfterFirstMoved(t *testing.T) {
	id := start(t, request(newID(), "move"))
	readUntil(t, id, id, "ready")
	kinds := []string{"mnt", "uts", "ipc"}
	var ofFirst []string
	for _, kind := range kinds {
		ofFirst = append(ofFirst, "../../1/ns/"+kind)
	}
	first := strings.Fields(output(t, id, append([]string{"namespaces"}, ofFirst...)...))
	own := strings.Fields(output(t, id, append([]string{"namespaces"}, kinds...)...))
	sandbox := strings.Fields(output(t, sandboxID, append([]string{"namespaces"}, kinds...)...))
	for i, kind := range kinds {
		if own[i] == first[i] {
			t.Errorf("%s: the exec has gone where the first process is, %s", kind, own[i])
		}
		if kind != "mnt" && own[i] != sandbox[i] {
			t.Errorf("%s: the exec has %s, the sandbox %s", kind, own[i], sandbox[i])
		}
	}
	if again := strings.Fields(output(t, id, "namespaces", "mnt")); again[0] != own[0] {
		t.Errorf("two execs are in the mount namespaces %s and %s", own[0], again[0])
	}
	if said := output(t, id, "cat", "/proc/1/comm"); said != "exe" {
		t.Errorf("the first process is %q; the execs are not in its pid namespace", said)
	}
}

func TestSysctls(t *testing.T) {
	req := request(newID(), "sleep")
	req.OCI.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "7"}
	id := start(t, req)
	if got := output(t, id, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "7" {
		t.Errorf("the setting is %s, want 7", got)
	}
}

func TestSeccomp(t *testing.T) {
	filter := func(rules ...*grpc.LinuxSyscall) *grpc.LinuxSeccomp {
		return &grpc.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{"SCMP_ARCH_X86_64"}, Syscalls: rules}
	}
	t.Run("a rule without a number succeeds and does nothing", func(t *testing.T) {
		req := request(newID(), "sleep")
		req.OCI.Linux.Seccomp = filter(&grpc.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: "SCMP_ACT_ERRNO"})
		id := start(t, req)
		if said := output(t, id, "mkdir", "/tmp/made"); said != "<nil>" && said != "errno 0" {
			t.Errorf("mkdir says %s", said)
		}
		eid := spawn(t, id, process("ls", "/tmp/made"))
		if code := wait(t, id, eid); code == 0 {
			t.Error("the directory was made")
		}
	})
	refused := map[string]*grpc.LinuxSeccomp{
		"WAIT_KILLABLE_RECV": {DefaultAction: "SCMP_ACT_ALLOW", Flags: []string{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}},
		"a rule of no call":  filter(&grpc.LinuxSyscall{Action: "SCMP_ACT_ERRNO"}),
	}
	for name, seccomp := range refused {
		t.Run(name, func(t *testing.T) {
			req := request(newID(), "sleep")
			req.OCI.Linux.Seccomp = seccomp
			if _, err := agent.CreateContainer(t.Context(), req); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}

func TestMounts(t *testing.T) {
	file := &grpc.CopyFileRequest{Path: shared + "bound", FileMode: unix.S_IFREG | 0o644, DirMode: 0o755}
	if err := copyFile(t.Context(), file, []byte("bound")); err != nil {
		t.Fatal(err)
	}
	existing := &grpc.CopyFileRequest{Path: root + "/etc/existing", FileMode: unix.S_IFREG | 0o644, DirMode: 0o755}
	if err := copyFile(t.Context(), existing, []byte("of the image")); err != nil {
		t.Fatal(err)
	}
	bind := func(to string) *grpc.Mount {
		return &grpc.Mount{Destination: to, Type: "bind", Source: shared + "bound", Options: []string{"bind", "ro"}}
	}
	with := func(mounts ...*grpc.Mount) *grpc.CreateContainerRequest {
		req := request(newID(), "sleep")
		req.OCI.Mounts = append(req.OCI.Mounts, mounts...)
		return req
	}

	id := start(t, with(
		&grpc.Mount{Destination: "/private", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=0755"}},
		&grpc.Mount{Destination: "/private/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "rw"}},
		bind("/private/dir/file"), bind("/etc/existing"), bind("/etc/new")))
	if said := output(t, id, "cat", "/private/cgroup/cgroup.type"); said != "domain" {
		t.Errorf("the container's cgroup is a %q", said)
	}
	for _, name := range []string{"/private/dir/file", "/etc/existing", "/etc/new"} {
		if said := output(t, id, "cat", name); said != "bound" {
			t.Errorf("%s is %q", name, said)
		}
	}
	// The file of the image is not what it was, though only something was bound over it.
	if said := output(t, start(t, request(newID(), "sleep")), "cat", "/etc/existing"); said != "" {
		t.Errorf("the file over which one was bound has %q in it", said)
	}

	readOnly := &grpc.Mount{Destination: "/private", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}}
	for name, req := range map[string]*grpc.CreateContainerRequest{
		"in a read-only tmpfs": with(readOnly, bind("/private/file")),
		"below /proc":          with(bind("/proc/sys/kernel/hostname")),
		"with dots":            with(bind("/a..b")),
	} {
		if _, err := agent.CreateContainer(t.Context(), req); err == nil {
			t.Errorf("a bind %s was made", name)
		}
	}
}

func TestCopyFile(t *testing.T) {
	file := &grpc.CopyFileRequest{
		Path: root + "/dir/sub/file.txt", FileMode: unix.S_IFREG | 0o4751, DirMode: 0o700, Uid: 12, Gid: 34}
	if err := copyFile(t.Context(), file, make([]byte, 2*chunk+5)); err != nil {
		t.Fatal(err)
	}
	link := &grpc.CopyFileRequest{
		Path: root + "/dir/link", FileMode: unix.S_IFLNK | 0o777, DirMode: 0o755, Uid: 5, Gid: 6, Data: []byte("/etc/somewhere")}
	if _, err := agent.CopyFile(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	id := start(t, request(newID(), "sleep"))
	for name, want := range map[string]string{
		"/dir/sub/file.txt": "-rwxr-x--x 12 34 2097157 ",
		"/dir/link":         "Lrwxrwxrwx 5 6 14 /etc/somewhere",
	} {
		if said := output(t, id, "ls", name); said != want {
			t.Errorf("%s: %s, want %s", name, said, want)
		}
	}
	for _, path := range []string{"/tmp/file", shared + "../../file", "/run/kata-containers/shared/containersfile"} {
		req := &grpc.CopyFileRequest{Path: path, FileMode: unix.S_IFREG | 0o644, DirMode: 0o755}
		if _, err := agent.CopyFile(t.Context(), req); err == nil {
			t.Errorf("%s was written", path)
		}
	}
}

func TestDetails(t *testing.T) {
	answer, err := agent.GetGuestDetails(t.Context(), &grpc.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	if err != nil || !answer.AgentDetails.GetSupportsSeccomp() {
		t.Errorf("GetGuestDetails: %v, %v; want that seccomp is supported", answer, err)
	}
	version, err := health.Version(t.Context(), &grpc.CheckRequest{})
	if err != nil || version.AgentVersion == "" {
		t.Errorf("Version: %v, %v", version, err)
	}
	metrics, err := agent.GetMetrics(t.Context(), &grpc.GetMetricsRequest{})
	if err != nil || !strings.Contains(metrics.Metrics, "kata_guest_load") {
		t.Errorf("GetMetrics: %v, %v", metrics, err)
	}
	if _, err := agent.RemoveStaleVirtiofsShareMounts(t.Context(), &grpc.RemoveStaleVirtiofsShareMountsRequest{}); err != nil {
		t.Errorf("RemoveStaleVirtiofsShareMounts: %v", err)
	}
	_, err = agent.SetPolicy(t.Context(), &grpc.SetPolicyRequest{Policy: "package agent_policy"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("SetPolicy: %v, want Unimplemented", err)
	}
}

func TestContainerIDs(t *testing.T) {
	for _, id := range []string{"", "a", "-a", "a/b", "../a"} {
		if _, err := agent.CreateContainer(t.Context(), request(id, "sleep")); err == nil {
			t.Errorf("a container with the id %q was made", id)
		}
	}
	id := create(t, request(newID(), "sleep"))
	if _, err := agent.CreateContainer(t.Context(), request(id, "sleep")); err == nil {
		t.Error("a second container with the id of the first was made")
	}
	if output(t, id, "cat", "/proc/self/comm") == "" {
		t.Error("the first one is broken now")
	}
}
