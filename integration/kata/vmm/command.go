// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// virtiofsds are where distributions have virtiofsd, and how each is told what to share. QEMU's own, in C, ended with
// QEMU 7.2; the later one is in Rust.
var virtiofsds = []struct {
	path string
	args func(source string) []string
}{
	{"/usr/lib/qemu/virtiofsd", func(source string) []string {
		return []string{"-o", "source=" + source, "-o", "cache=auto", "-o", "no_posix_lock", "-o", "log_level=warn"}
	}},
	{"/usr/libexec/virtiofsd", func(source string) []string {
		return []string{"--shared-dir=" + source, "--cache=auto", "--announce-submounts", "--log-level=warn"}
	}},
}

// virtiofsdCommand shares what Kata's shim puts together for its guest, in the mount namespace of the shim. Descriptor 3 is
// the socket at which it listens.
func (m *machine) virtiofsdCommand() ([]string, error) {
	source := filepath.Join("/run/kata-containers/shared/sandboxes", m.id, "shared")
	for _, v := range virtiofsds {
		if _, err := os.Stat(v.path); err == nil {
			enter := []string{"nsenter", "--target", strconv.Itoa(m.shim), "--mount", "--", v.path, "--fd=3"}
			return append(enter, v.args(source)...), nil
		}
	}
	return nil, errors.New("virtiofsd is not installed: see integration/tools/install-deps.sh")
}

// qemuCommand is a machine with a console on stdout, a port "agent.0" that is the unix socket "agent", the file system
// "kataShared", and the interface that its pod may have. q35 because its timer is one that a guest can calibrate by under
// emulation; microvm hangs in one boot of five.
func (m *machine) qemuCommand() []string {
	o := m.daemon.options
	accel := o.accel
	if accel == "tcg" {
		accel = "tcg,thread=multi"
	}
	memory := strconv.Itoa(m.asked.memory)
	command := []string{
		"qemu-system-x86_64", "-name", m.id, "-M", "q35", "-accel", accel, "-cpu", "max",
		"-smp", strconv.Itoa(m.asked.vcpus), "-m", memory + "M",
		// virtiofsd reads and writes the guest's memory, so that is shared.
		"-object", "memory-backend-memfd,id=memory,size=" + memory + "M,share=on", "-numa", "node,memdev=memory",
		"-kernel", o.kernel, "-initrd", o.initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off standin.policy=" + m.asked.policy + m.network.parameter(),
		"-chardev", fmt.Sprintf("socket,id=fs,path=%s", m.path("fs")), "-device", "vhost-user-fs-pci,chardev=fs,tag=kataShared",
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=agent,path=%s,server=on,wait=off", m.path("agent")),
		"-device", "virtserialport,chardev=agent,name=agent.0",
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot",
	}
	return append(command, m.network.devices()...)
}
