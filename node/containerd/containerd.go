// SPDX-License-Identifier: Apache-2.0

// Package containerd finds the containerd of a node, reads its configuration, says how handlers are added to it and taken out
// again, and restarts it.
//
// What it knows of containerd's configuration was read in the source of 1.7.35 (services/server/config) and of 2.0.5, 2.1.4, 2.2.0
// and 2.4.2 (cmd/containerd/server/config), and docs/node-guide.md says it in words.
package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"metsuke.dev/metsuke/node/tree"
)

// DefaultConfig is the main file that containerd reads unless it is told another.
const DefaultConfig = "/etc/containerd/config.toml"

// SearchPath is where systemd's services look for programs by default, and so where containerd looks for shims (systemd.exec(5), PATH).
var SearchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// Containerd is a node's containerd. Paths are the node's.
type Containerd struct {
	Binary string
	Config string // main file; it need not exist

	tree *tree.Tree
	run  func(ctx context.Context, args ...string) ([]byte, error)
}

// New describes the containerd with this binary and this main file. Nothing is looked at yet.
func New(t *tree.Tree, binary, config string) *Containerd {
	c := &Containerd{Binary: binary, Config: config, tree: t}
	c.run = c.chrooted
	return c
}

// NewFake is a Containerd for tests: run takes the place of the binary.
func NewFake(t *tree.Tree, config string, run func(ctx context.Context, args ...string) ([]byte, error)) *Containerd {
	return &Containerd{Binary: "/usr/local/bin/containerd", Config: config, tree: t, run: run}
}

// maxOutput bounds what is kept of a program's output, in bytes.
const maxOutput = 8 << 20

// chrooted runs the binary on the node's files and returns what it prints.
func (c *Containerd) chrooted(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Binary, args...)
	if dir := c.tree.Dir(); dir != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + strings.Join(SearchPath, ":")}
	var out, errs bounded
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w%s", c.Binary, strings.Join(args, " "), err, lastLine(errs.kept.Bytes()))
	}
	return out.kept.Bytes(), nil
}

// bounded takes no more than maxOutput. It is no bytes.Buffer, whose ReadFrom, which os/exec would use, knows no bound.
type bounded struct{ kept bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.kept.Len()+len(p) > maxOutput {
		return 0, fmt.Errorf("more than %d bytes of output", maxOutput)
	}
	return b.kept.Write(p)
}

// lastLine is how a program's complaints end, for an error's text.
func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	last := lines[len(lines)-1]
	if last == "" {
		return ""
	}
	return ": " + strconv.QuoteToGraphic(last[:min(len(last), 500)])
}

// Version is containerd's version.
type Version struct {
	Text         string // as it says it: "v2.4.2", "1.7.24~ds1"
	Major, Minor int
}

var versionForm = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})\b`)

// Version asks the binary for its version. Versions before 1.7 are an error.
func (c *Containerd) Version(ctx context.Context) (Version, error) {
	out, err := c.run(ctx, "--version")
	if err != nil {
		return Version{}, err
	}
	// "containerd github.com/containerd/containerd/v2 v2.4.2 <revision>"
	words := strings.Fields(string(out))
	if len(words) < 3 {
		return Version{}, fmt.Errorf("%s --version says %q, which is not what containerd says", c.Binary, out)
	}
	m := versionForm.FindStringSubmatch(words[2])
	if m == nil {
		return Version{}, fmt.Errorf("%s --version says %q, and %q is no version", c.Binary, out, words[2])
	}
	v := Version{Text: words[2]}
	v.Major, _ = strconv.Atoi(m[1]) // at most four digits
	v.Minor, _ = strconv.Atoi(m[2])
	if v.Major < 1 || v.Major == 1 && v.Minor < 7 {
		return v, fmt.Errorf("containerd %s is too old: Metsuke needs 1.7 or later", v.Text)
	}
	return v, nil
}

// LookPath finds a shim's binary as containerd does (core/runtime/v2, resolveRuntimePath): in its PATH, then beside itself. It returns
// "" if there is none.
func (c *Containerd) LookPath(name string) string {
	beside := c.Binary[:strings.LastIndexByte(c.Binary, '/')]
	for _, dir := range append(SearchPath[:len(SearchPath):len(SearchPath)], beside) {
		if file := dir + "/" + name; c.Executable(file) {
			return file
		}
	}
	return ""
}

// Executable reports whether there is a program at a path of the node.
func (c *Containerd) Executable(file string) bool {
	st, err := c.tree.Stat(file)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// Address is where containerd listens, as a dump of its configuration says.
func (d Dump) Address() (string, error) {
	for _, at := range [][]string{{"plugins", "io.containerd.server.v1.grpc", "address"}, {"grpc", "address"}} { // 2.3 and later; before
		if address, ok := get(d, at...).(string); ok && address != "" {
			return address, nil
		}
	}
	return "", errors.New("containerd's configuration does not say where it listens")
}
