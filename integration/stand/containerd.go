// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

// Version names a containerd that the stand can run.
type Version string

// The containerd versions of the stand.
const (
	V2 Version = "2.4" // config version 3, bootstrap by BootstrapParams
	V1 Version = "1.7" // config version 2, bootstrap by flags
)

// Versions are all, newest first.
var Versions = []Version{V2, V1}

// Set is the version's tool set, for Enter.
func (v Version) Set() string {
	if v == V1 {
		return "containerd1"
	}
	return "containerd2"
}

// index is the version's place in names and addresses.
func (v Version) index() int {
	if v == V1 {
		return 1
	}
	return 0
}

const configV2 = `version = 3
root = "{{.Dir}}/root"
state = "{{.Dir}}/state"
disabled_plugins = [{{range .Disabled}}"{{.}}", {{end}}]
[grpc]
  address = "{{.Dir}}/containerd.sock"
[debug]
  level = "{{.Level}}"
{{- range .Timeouts}}
{{.}}
{{- end}}
[plugins.'io.containerd.internal.v1.opt']
  path = "{{.Dir}}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.grpc.v1.cri']
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{{.Pause}}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "{{.Dir}}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {{.RestrictOOM}}
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{{.CNI}}"]
    conf_dir = "{{.Dir}}/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "{{.Delegate}}"
{{- range .Handlers}}
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{{.Name}}]
      runtime_type = "{{.RuntimeType}}"
      pod_annotations = ["metsuke.dev/*"{{range $.Annotations}}, "{{.}}"{{end}}]
      container_annotations = ["metsuke.dev/*"]
{{- range .Lines}}
      {{.}}
{{- end}}
{{- if .Options}}
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{{.Name}}.options]
{{- end}}
{{- range .Options}}
        {{.}}
{{- end}}
{{- end}}
`

const configV1 = `version = 2
root = "{{.Dir}}/root"
state = "{{.Dir}}/state"
disabled_plugins = [{{range .Disabled}}"{{.}}", {{end}}]
[grpc]
  address = "{{.Dir}}/containerd.sock"
[debug]
  level = "{{.Level}}"
{{- range .Timeouts}}
{{.}}
{{- end}}
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Dir}}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Pause}}"
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = {{.RestrictOOM}}
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{{.Dir}}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{.CNI}}"
    conf_dir = "{{.Dir}}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "{{.Delegate}}"
{{- range .Handlers}}
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{{.Name}}]
      runtime_type = "{{.RuntimeType}}"
      pod_annotations = ["metsuke.dev/*"{{range $.Annotations}}, "{{.}}"{{end}}]
      container_annotations = ["metsuke.dev/*"]
{{- range .Lines}}
      {{.}}
{{- end}}
{{- if .Options}}
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{{.Name}}.options]
{{- end}}
{{- range .Options}}
        {{.}}
{{- end}}
{{- end}}
`

// disabledPlugins are not used here, and some of them fail loudly on machines without their kernel modules.
var disabledPlugins = map[Version][]string{
	V2: {
		"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs",
		"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.tracing.processor.v1.otlp",
	},
	V1: {
		"io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
		"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.tracing.processor.v1.otlp",
	},
}

// writeConfig writes config.toml, hosts.toml and the CNI network of the stand.
func (s *Stand) writeConfig() error {
	form := configV2
	if s.running == V1 {
		form = configV1
	}
	cni, err := Tool("cni", "bridge")
	if err != nil {
		return err
	}
	type handler struct {
		Name, RuntimeType string
		Lines, Options    []string
	}
	delegate := s.installed
	data := struct {
		Dir, Level, Pause, CNI, Delegate string
		RestrictOOM                      bool
		Disabled, Annotations, Timeouts  []string
		Handlers                         []handler
	}{
		Dir: s.Dir, Level: "debug", Pause: ImagePause, CNI: filepath.Dir(cni), Delegate: s.Delegate.Name,
		// A negative score needs CAP_SYS_RESOURCE, which root in some sandboxes lacks.
		RestrictOOM: !HasCapability(unix.CAP_SYS_RESOURCE),
		Disabled:    disabledPlugins[s.running],
		Annotations: delegate.annotations,
		Timeouts:    delegate.timeouts,
		Handlers: []handler{{
			Name: s.Delegate.Name, RuntimeType: delegate.runtimeType, Options: delegate.options,
			Lines: append(delegate.alone, delegate.handler...),
		}},
	}
	for _, h := range s.options.Handlers {
		path, err := s.writeHandler(h)
		if err != nil {
			return err
		}
		entry := handler{Name: h.Name, RuntimeType: "io.containerd.metsuke.v2", Lines: delegate.handler}
		if !h.DefaultPlace {
			entry.Options = []string{fmt.Sprintf("ConfigPath = %q", path)}
		}
		data.Handlers = append(data.Handlers, entry)
	}
	var config bytes.Buffer
	if err := template.Must(template.New("config").Parse(form)).Execute(&config, data); err != nil {
		return err
	}
	hosts := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", s.registry, s.registry)
	for path, content := range map[string]string{
		"config.toml":                 config.String(),
		"certs.d/_default/hosts.toml": hosts,
		"net.d/10-stand.conflist":     s.network(),
	} {
		path = filepath.Join(s.Dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// StartContainerd starts containerd and waits until CRI is ready. Pods that an earlier one left running are its again.
func (s *Stand) StartContainerd(ctx context.Context) error {
	binary, err := Tool(s.running.Set(), "containerd")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(binary, "--config", filepath.Join(s.Dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.Dir
	// The shims are found by PATH: the version's own runc shim, and Metsuke's.
	path := append([]string{filepath.Dir(binary), os.Getenv(binVariable)}, s.installed.path...)
	cmd.Env = append(withoutVariable(os.Environ(), "PATH"), "PATH="+strings.Join(append(path, os.Getenv("PATH")), ":"))
	cmd.Env = append(cmd.Env, s.options.Environment...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a Ctrl-C is for the stand, which then ends containerd itself
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	s.containerd = cmd
	s.exited = make(chan struct{})
	go func(exited chan struct{}) {
		_ = cmd.Wait() // its status says nothing that the log does not
		close(exited)
	}(s.exited)
	return s.waitReady(ctx)
}

func (s *Stand) waitReady(ctx context.Context) error {
	// In an emulated machine it takes most of a minute.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("containerd ended at once:\n%s", s.LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("containerd is not ready: %w\n%s", err, s.LogTail(20))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stopPatience is how long a containerd that hangs goes unnoticed: a busy one takes seconds.
const stopPatience = 2 * time.Minute

// StopContainerd ends containerd with a signal (SIGTERM: orderly; SIGKILL: a crash) and waits for its end. Pods live on.
func (s *Stand) StopContainerd(signal unix.Signal) error {
	if s.containerd == nil {
		return nil
	}
	if err := s.containerd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
	case <-time.After(stopPatience):
		_ = s.containerd.Process.Kill()
		<-s.exited
		return fmt.Errorf("containerd did not end within %s of %v", stopPatience, signal)
	}
	s.containerd = nil
	return nil
}

// Upgrade ends containerd in order and starts the one of another version in its place: on the same state, with the same
// handlers, in the form of configuration that the other one reads. Pods live on.
func (s *Stand) Upgrade(ctx context.Context, version Version) error {
	if err := s.StopContainerd(unix.SIGTERM); err != nil {
		return err
	}
	s.running = version
	if err := s.writeConfig(); err != nil {
		return err
	}
	return s.StartContainerd(ctx)
}

// hasOpen says whether containerd has a file open.
func (s *Stand) hasOpen(path string) bool {
	if s.containerd == nil {
		return false
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.containerd.Process.Pid)) // none: it has ended
	return slices.ContainsFunc(fds, func(fd string) bool {
		target, err := os.Readlink(fd)
		return err == nil && target == path
	})
}

// LogPath is containerd's log; what shims write to theirs comes there too, at level debug.
func (s *Stand) LogPath() string { return filepath.Join(s.Dir, "containerd.log") }

// LogTail is the last lines of containerd's log.
func (s *Stand) LogTail(lines int) string {
	content, err := os.ReadFile(s.LogPath())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func withoutVariable(environ []string, name string) []string {
	var kept []string
	for _, v := range environ {
		if !strings.HasPrefix(v, name+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}
