// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Variables of the environment that put a real part of Kata in the place of what the stand makes itself; each is a path.
const (
	kataVariable       = "METSUKE_KATA"        // directory of an installation of Kata: its shim, hypervisor, guest and agent
	kataConfigVariable = "METSUKE_KATA_CONFIG" // another configuration of that installation than the default one
	kataShimVariable   = "METSUKE_KATA_SHIM"   // with the stand's guests: a shim of Kata's, instead of the Go one that the stand builds
	kataAgentVariable  = "METSUKE_KATA_AGENT"  // with the stand's machines: process 1 of the guest, instead of the stand-in
	kataVMMVariable    = "METSUKE_KATA_VMM"    // of the program inside: the daemon that runs the guests
	accelVariable      = "METSUKE_ACCEL"       // no path: QEMU's accelerator, tcg (default) or kvm
)

// Kata is Kata's shim with a real guest kernel. Unless METSUKE_KATA names an installation of Kata's own, the guest runs in an
// emulated machine, under a stand-in for Kata's agent: see kata/README.md.
var Kata = &Delegate{
	Name:       "kata",
	Placements: []Placement{Guest},
	about:      aboutKata,
	tools: func() []string {
		switch {
		case os.Getenv(kataVariable) != "":
			return nil
		case os.Getenv(kataShimVariable) != "":
			return []string{"kernel", "runcstatic"}
		}
		return []string{"kata", "kernel", "runcstatic"}
	},
	build:   buildKata,
	install: installKata,
}

// OnTheStand says that guests of Kata are the stand's own, under its stand-in agent. Else they are those of an installation, or
// their agent is, and what only the stand's guests do, such as to obey the policies of the stand-in, cannot be tested.
func OnTheStand() bool {
	given := os.Getenv(kataAgentVariable)
	return os.Getenv(kataVariable) == "" && (given == "" || strings.HasPrefix(given, filepath.Join(CacheDir(), "bin")+"/"))
}

// aboutKata says which parts are Kata's.
func aboutKata() string {
	if dir := os.Getenv(kataVariable); dir != "" {
		found, err := findKata(dir, os.Getenv(kataConfigVariable))
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("Kata itself: %s, %s", found.version(), found.config)
	}
	machine, agent := "emulated guests", "Metsuke's stand-in for Kata's agent"
	if accel() != "tcg" {
		machine = "guests under " + accel()
	}
	if !OnTheStand() {
		agent = "the agent " + os.Getenv(kataAgentVariable)
	}
	return fmt.Sprintf("Kata's shim, %s and %s", machine, agent)
}

// accel is QEMU's accelerator.
func accel() string { return cmp.Or(os.Getenv(accelVariable), "tcg") }

// buildKata builds the parts of the stand-in that are not given.
func buildKata(module string) error {
	if dir := os.Getenv(kataVariable); dir != "" {
		_, err := findKata(dir, os.Getenv(kataConfigVariable))
		return err
	}
	if config := os.Getenv(kataConfigVariable); config != "" {
		return fmt.Errorf("%s=%s without %s, the directory where that Kata is installed", kataConfigVariable, config, kataVariable)
	}
	for variable, pkg := range map[string]string{kataAgentVariable: "./agent", kataVMMVariable: "./vmm"} {
		if os.Getenv(variable) != "" {
			continue
		}
		out := filepath.Join(binDir(module), "kata-"+filepath.Base(pkg))
		if err := goBuild(filepath.Join(module, "kata"), out, pkg); err != nil {
			return err
		}
		if err := os.Setenv(variable, out); err != nil {
			return err
		}
	}
	return nil
}

func installKata(s *Stand) (*installation, error) {
	if err := listenSyslog(); err != nil {
		return nil, err
	}
	kata, end, err := kataToRun(s)
	if err != nil {
		return nil, err
	}
	return &installation{
		runtimeType: "io.containerd.kata.v2",
		shim:        kata.shim,
		options:     []string{fmt.Sprintf("ConfigPath = %q", kata.config)},
		alone:       []string{fmt.Sprintf("runtime_path = %q", kata.shim)},
		handler:     []string{"privileged_without_host_devices = true"},
		annotations: []string{"io.katacontainers.*"},
		close:       end,
	}, nil
}

// kataToRun is the installation, or shim and configuration with the stand's own guests, and what ends those.
func kataToRun(s *Stand) (kata kataFiles, end func() error, err error) {
	if dir := os.Getenv(kataVariable); dir != "" {
		kata, err = findKata(dir, os.Getenv(kataConfigVariable))
		return kata, func() error { return nil }, err
	}
	if kata.shim = os.Getenv(kataShimVariable); kata.shim == "" {
		if kata.shim, err = Tool("kata", kataShim); err != nil {
			return kata, nil, err
		}
	}
	vmm, err := startVMM(s)
	if err != nil {
		return kata, nil, err
	}
	kata.config = filepath.Join(s.kataDir(), "configuration.toml")
	if err := os.WriteFile(kata.config, fmt.Appendf(nil, kataConfig, vmm.socket), 0o644); err != nil {
		return kata, nil, errors.Join(err, vmm.stop())
	}
	return kata, vmm.stop, nil
}

// kataConfig is Kata's configuration for its driver of remote machines, with Kata's own defaults but for patience: a machine
// may boot long, but then its socket is there, and while the shim dials one that a stop has removed, the stop waits, and a CPU
// does nothing else (virtcontainers/pkg/agent/protocols/client/client.go, commonDialer).
const kataConfig = `[hypervisor.remote]
remote_hypervisor_socket = %q
remote_hypervisor_timeout = 300
enable_annotations = ["machine_type", "default_memory", "default_vcpus", "image", "default_gpus", "gpu_model", "cc_init_data"]
disable_guest_selinux = true
[agent.kata]
dial_timeout = 5
[runtime]
internetworking_model = "none"
disable_guest_seccomp = true
disable_new_netns = true
sandbox_cgroup_only = false
static_sandbox_resource_mgmt = true
create_container_timeout = 120
`

// kataDir has what the stand makes for Kata, and the consoles of guests.
func (s *Stand) kataDir() string { return filepath.Join(s.Dir, "kata") }

// GuestConsoles are the files that the consoles of guests are written to, of machines that are gone too.
func (s *Stand) GuestConsoles() []string {
	found, _ := filepath.Glob(filepath.Join(s.kataDir(), "*.console")) // its only error is a malformed pattern
	return found
}

// syslogSocket is one of the places at which syslog(3) is looked for, the one that is the stand's own.
const syslogSocket = "/run/syslog"

// listenSyslog takes what Kata's shims write to syslog, without which they do not start, into a file beside the socket.
func listenSyslog() error {
	if _, err := os.Stat(syslogSocket); !errors.Is(err, fs.ErrNotExist) {
		return err // an earlier stand of this program listens
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: syslogSocket, Net: "unixgram"})
	if err != nil {
		return err
	}
	log, err := os.OpenFile(syslogSocket+".log", os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	go func() { _, _ = io.Copy(log, conn) }()
	return nil
}

// vmm is the daemon that runs the guests of a stand.
type vmm struct {
	cmd    *exec.Cmd
	socket string
	ended  chan struct{} // closed when it has
}

// startVMM starts kata/vmm, and waits until it serves.
func startVMM(s *Stand) (*vmm, error) {
	if err := os.MkdirAll(s.kataDir(), 0o700); err != nil {
		return nil, err
	}
	image := filepath.Join(s.kataDir(), "initrd")
	if err := writeGuest(image); err != nil {
		return nil, fmt.Errorf("make the guest: %w", err)
	}
	kernel, err := Tool("kernel", "vmlinuz")
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(s.kataDir(), "vmm.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	// Short, because it holds sockets with whole IDs in their paths.
	dir := fmt.Sprintf("/run/kata%d", s.Version.index())
	v := &vmm{socket: filepath.Join(dir, "hypervisor.sock"), ended: make(chan struct{})}
	v.cmd = exec.Command(os.Getenv(kataVMMVariable), "-dir", dir, "-logs", s.kataDir(), "-kernel", kernel, "-initrd", image, "-accel", accel())
	v.cmd.Stdout, v.cmd.Stderr = log, log
	v.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a Ctrl-C is for the stand
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = v.cmd.Wait() // its log says why
		close(v.ended)
	}()
	for {
		if _, err := os.Stat(v.socket); err == nil {
			return v, nil
		}
		select {
		case <-v.ended:
			content, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the daemon of the guests ended: %s", content)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the daemon, with all its machines.
func (v *vmm) stop() error {
	if err := v.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-v.ended
	return nil
}
