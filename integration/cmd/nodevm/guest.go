// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/reaper"
)

// Numbers of the serial ports that the command's output and its status go through.
const (
	outputPort = 1
	statusPort = 2
)

// guest is process 1 of the machine. What it cannot do it says on the console, and turns the machine off.
func guest() {
	if err := runJob(); err != nil {
		fmt.Println("nodevm: in the machine:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the kernel would panic, and hide the reason
}

func runJob() error {
	var j job
	text, err := os.ReadFile("/job")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	for _, variable := range j.Env {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	for _, file := range j.Load {
		if err := loadModule("/" + file); err != nil {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	if err := enterRoot(); err != nil {
		return err
	}
	if err := setUp(j.Modules); err != nil {
		return err
	}
	output, err := openPort(outputPort)
	if err != nil {
		return err
	}
	status, err := openPort(statusPort)
	if err != nil {
		return err
	}
	code := j.run(output)
	_, err = fmt.Fprint(status, code)
	return err
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	err = unix.FinitModule(int(file.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// enterRoot makes the outer machine's files, below a tmpfs that takes what is written, the root.
func enterRoot() error {
	err := mountAll([]mount{
		{"root", "/lower", "virtiofs", unix.MS_RDONLY, ""},
		{"tmpfs", "/upper", "tmpfs", 0, "mode=0755,size=75%"},
	})
	if err != nil {
		return err
	}
	for _, dir := range []string{"/upper/files", "/upper/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mountAll([]mount{{"root", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"}}); err != nil {
		return err
	}
	// The initial file system cannot be pivoted away; process 1's root is that of kernel threads too, which run modprobe.
	if err := unix.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// setUp makes the root what a node's is.
func setUp(modules string) error {
	const hidden = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := mountAll([]mount{
		{"proc", "/proc", "proc", hidden, ""},
		{"sysfs", "/sys", "sysfs", hidden, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
		{"shm", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", hidden, ""},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", hidden, "nsdelegate"},
		{modules, filepath.Join("/lib/modules", filepath.Base(modules)), "", unix.MS_BIND, ""},
	})
	if err != nil {
		return err
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"} {
		_ = os.Remove("/dev/" + name)
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("node")); err != nil {
		return err
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	enable := "+" + strings.Join(strings.Fields(string(controllers)), " +")
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte(enable), 0); err != nil {
		return fmt.Errorf("enable cgroup controllers %s: %w", enable, err)
	}
	for _, command := range [][]string{
		{"modprobe", "-a", "vhost_vsock", "br_netfilter"}, // br_netfilter: asked for by nobody, wanted by kubelet and CNI
		{"ip", "link", "set", "lo", "up"},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	}
	return nil
}

// openPort waits until the driver has made the port known.
func openPort(number int) (*os.File, error) {
	pattern := "/dev/vport*p" + strconv.Itoa(number)
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if matches, err := filepath.Glob(pattern); err != nil {
			return nil, err
		} else if len(matches) == 1 {
			return os.OpenFile(matches[0], os.O_WRONLY, 0)
		}
	}
	return nil, fmt.Errorf("there is no %s", pattern)
}

// run runs the command and returns its status. Orphans are process 1's, so it waits for all.
func (j *job) run(output *os.File) int {
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Dir = j.Dir
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		_, _ = fmt.Fprintln(output, "nodevm:", err)
		return failed
	}
	status, err := reaper.Wait(cmd.Process.Pid)
	if err != nil {
		_, _ = fmt.Fprintln(output, "nodevm: wait for the command:", err)
		return failed
	}
	return status
}
