// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/initrd"
)

// Where everything lies in the mount namespace, which has a tmpfs at /run (virtiofsd has files of its own there).
const (
	sharedDir   = "/run/root" // this machine's files, read-only
	initrdPath  = "/run/initrd"
	consolePath = "/run/console"
	statusPath  = "/run/status"
	socketPath  = "/run/virtiofs"
)

// memory is what the machine has of it; it takes it from this machine as it uses it.
const memory = "4G"

// bootModules are what it takes to see the machine's files and to be heard.
var bootModules = []string{"virtio_pci", "virtiofs", "overlay", "virtio_console"}

// boot runs the machine until it is off, and returns the command's status.
func (m *machine) boot() (int, error) {
	if err := m.mount(); err != nil {
		return 0, err
	}
	if err := m.writeInitrd(); err != nil {
		return 0, fmt.Errorf("initrd: %w", err)
	}
	if err := share(); err != nil {
		return 0, err
	}
	qemu := exec.Command("qemu-system-x86_64", m.arguments()...)
	// Not as *os.File: QEMU would make the caller's terminal non-blocking.
	qemu.Stdout, qemu.Stderr = struct{ *os.File }{os.Stdout}, os.Stderr
	err := qemu.Run()
	status, statusErr := os.ReadFile(statusPath)
	if code, convErr := strconv.Atoi(string(status)); err == nil && statusErr == nil && convErr == nil {
		return code, nil
	}
	console, _ := os.ReadFile(consolePath) // for people; the errors above are what matters
	return 0, fmt.Errorf("the machine ended before its command did: %w, its console:\n%s", errors.Join(err, statusErr), tail(console, 30))
}

// mount shows this machine's files at sharedDir, as they were mounted before, and makes the tmpfs.
func (m *machine) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer func() { _ = unix.Close(tree) }()
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &readOnly); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the new pid namespace: %w", err)
	}
	if err := os.Mkdir(sharedDir, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, sharedDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount this machine's files: %w", err)
	}
	return nil
}

// writeInitrd puts this very program, the job and the modules into the machine's initial file system.
func (m *machine) writeInitrd() (err error) {
	kernel, err := filepath.Abs(m.kernel)
	if err != nil {
		return err
	}
	releases, err := os.ReadDir(filepath.Join(sharedDir, kernel, "modules"))
	if err != nil || len(releases) != 1 {
		return fmt.Errorf("%s has no modules of one release: %w", kernel, err)
	}
	m.kernel = filepath.Join(sharedDir, kernel)
	m.job.Modules = filepath.Join(kernel, "modules", releases[0].Name())
	modules, err := initrd.Modules(filepath.Join(sharedDir, m.job.Modules), bootModules...)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(initrdPath, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := initrd.NewWriter(file)
	w.Copy("init", "/proc/self/exe", 0o755)
	for _, dir := range []string{"proc", "sys", "dev", "lower", "upper", "root"} {
		w.Dir(dir)
	}
	for _, module := range modules {
		name := filepath.Join("modules", filepath.Base(module))
		w.Copy(name, filepath.Join(sharedDir, m.job.Modules, module), 0o644)
		m.job.Load = append(m.job.Load, name)
	}
	text, err := json.Marshal(m.job)
	if err != nil {
		return err
	}
	w.File("job", text, 0o600)
	return w.Close()
}

// share starts virtiofsd, which ends with QEMU's connection, and waits for its socket.
func share() error {
	program := "/usr/lib/qemu/virtiofsd" // Debian 12; later ones have the program's successor, which takes these options too
	if _, err := os.Stat(program); err != nil {
		program = "/usr/libexec/virtiofsd"
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--socket-path="+socketPath, "-o", "source="+sharedDir, "-o", "cache=always", "-o", "no_posix_lock")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("share this machine's files: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if _, err := os.Stat(socketPath); err == nil {
			return nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case err := <-ended:
			return fmt.Errorf("virtiofsd: %w\n%s", err, log.Bytes())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// arguments are QEMU's. The machine is q35, because microvm has no clock to calibrate the TSC against and then hangs in
// one boot of five.
func (m *machine) arguments() []string {
	accel, cpu := "tcg,thread=multi", "max"
	if os.Getenv("METSUKE_ACCEL") == "kvm" {
		accel, cpu = "kvm", "host"
	}
	return []string{
		"-M", "q35", "-accel", accel, "-cpu", cpu, "-smp", "2", "-m", memory,
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-kernel", filepath.Join(m.kernel, "vmlinuz"), "-initrd", initrdPath,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off",
		"-serial", "file:" + consolePath,
		// virtiofsd reads and writes the guest's memory.
		"-object", "memory-backend-memfd,id=memory,share=on,size=" + memory, "-numa", "node,memdev=memory",
		"-chardev", "socket,id=root,path=" + socketPath, "-device", "vhost-user-fs-pci,chardev=root,tag=root",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=output,path=/dev/stdout", "-device", "virtserialport,chardev=output,nr=" + strconv.Itoa(outputPort),
		"-chardev", "file,id=status,path=" + statusPath, "-device", "virtserialport,chardev=status,nr=" + strconv.Itoa(statusPort),
	}
}

func tail(text []byte, lines int) string {
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
