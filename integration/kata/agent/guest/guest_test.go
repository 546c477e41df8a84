// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestModuleOrder(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"as the file says":  {map[string]string{"a.ko": "", "b.ko": "", "order": "b.ko\na.ko\n"}, []string{"b.ko", "a.ko"}},
		"as they are named": {map[string]string{"01-z.ko": "", "00-y.ko": ""}, []string{"00-y.ko", "01-z.ko"}},
		"none":              {nil, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := moduleOrder(writeFiles(t, test.files)); err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v, %v; want %v", got, err, test.want)
			}
		})
	}
	if got, err := moduleOrder(filepath.Join(t.TempDir(), "none")); err != nil || len(got) != 0 {
		t.Errorf("a kernel without modules: %v, %v", got, err)
	}
}

func TestOption(t *testing.T) {
	for line, want := range map[string]string{
		"console=ttyS0 standin.policy=deny-exec quiet\n": "deny-exec", "standin.policy=a standin.policy=b": "b",
		"xstandin.policy=a standin.policyx=b": "", "standin.policy": "", "standin.policy=": "",
	} {
		if got := option(line, "standin.policy"); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestEnableControllers(t *testing.T) {
	dir := writeFiles(t, map[string]string{"cgroup.controllers": "cpu memory\n", "cgroup.subtree_control": ""})
	if err := enableControllers(dir); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); err != nil || string(text) != "+memory" {
		t.Errorf("the last thing written is %q, %v", text, err)
	}
	if err := enableControllers(t.TempDir()); err == nil {
		t.Error("a guest without cgroup v2 is accepted")
	}
}

func TestFindPort(t *testing.T) {
	class := writeFiles(t, map[string]string{"vport1p1/name": "other\n", "vport2p1/name": "agent.0\n"})
	p, err := findPort(class, "/dev", "agent.0")
	if err != nil || p.device != "/dev/vport2p1" {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := findPort(class, "/dev", "agent.1"); err == nil {
		t.Errorf("a port that there is not was found: %v", p.device)
	}
}

// A port is one connection at a time. A pseudo-terminal takes its part.
func TestPort(t *testing.T) {
	master, host := openTerminal(t)
	p := &Port{device: master, free: make(chan struct{}, 1), closed: make(chan struct{})}
	p.free <- struct{}{}
	first, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 6)
	if _, err := io.ReadFull(first, text); err != nil || string(text) != "hello\n" {
		t.Errorf("%q, %v", text, err)
	}
	second := make(chan error)
	go func() {
		conn, err := p.Accept()
		if err == nil {
			err = conn.Close()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Errorf("two connections at a time: %v", err)
	default:
	}
	for range 2 {
		_ = first.Close() // the second time it frees nothing
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	<-p.free
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want that it is closed", err)
	}
}

// openTerminal gives the name of a terminal that its other end, the file, can be written to.
func openTerminal(t *testing.T) (string, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/dev/pts/%d", number), master
}
