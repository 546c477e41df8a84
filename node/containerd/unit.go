// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"metsuke.dev/metsuke/node/tree"
)

// UnitName is the systemd unit that containerd's own packages install.
const UnitName = "containerd.service"

// systemdSocket is systemd's own socket (systemd(1), /run/systemd/private): it needs no message bus, and is reached through the
// node's files alone, whatever namespaces the caller has.
const systemdSocket = "/run/systemd/private"

// Unit is containerd as a service of the node's systemd.
type Unit struct {
	Binary, Config string // as its command line says
	KillMode       string
	Fragment       string // the unit's file
	Active         bool

	tree *tree.Tree
}

// ErrNoSystemd is wrapped by the error of [FindUnit] on a node whose systemd cannot be asked.
var ErrNoSystemd = errors.New("the node's systemd cannot be asked")

// FindUnit asks the node's systemd how it runs containerd. The error says which flags help where it does not.
func FindUnit(ctx context.Context, t *tree.Tree) (*Unit, error) {
	conn, err := connect(ctx, t)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	unit, err := conn.GetUnitPropertiesContext(ctx, UnitName)
	if err != nil {
		return nil, fmt.Errorf("ask systemd for %s: %w", UnitName, err)
	}
	service, err := conn.GetUnitTypePropertiesContext(ctx, UnitName, "Service")
	if err != nil {
		return nil, fmt.Errorf("ask systemd for %s: %w", UnitName, err)
	}
	u, err := parseUnit(unit, service)
	if err != nil {
		return nil, err
	}
	u.tree = t
	return u, nil
}

func connect(ctx context.Context, t *tree.Tree) (*systemd.Conn, error) {
	socket, release, err := t.Reach(systemdSocket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no socket %s", ErrNoSystemd, systemdSocket)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSystemd, err)
	}
	defer release()
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) {
		c, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(socket), dbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
			_ = c.Close()
			return nil, err
		}
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSystemd, err)
	}
	return conn, nil
}

// parseUnit reads the properties of org.freedesktop.systemd1.Unit and .Service (org.freedesktop.systemd1(5)).
func parseUnit(unit, service map[string]any) (*Unit, error) {
	if state, _ := unit["LoadState"].(string); state != "loaded" {
		return nil, fmt.Errorf("systemd has no unit %s (its state is %q); where containerd runs otherwise, say --containerd, --containerd-config and --no-restart", UnitName, state)
	}
	u := &Unit{}
	u.Fragment, _ = unit["FragmentPath"].(string)
	active, _ := unit["ActiveState"].(string)
	u.Active = active == "active" || active == "reloading"
	u.KillMode, _ = service["KillMode"].(string)
	commands, _ := service["ExecStart"].([][]any) // a(sasbttttuii): path, argv, ...
	if len(commands) == 0 || len(commands[0]) < 2 {
		return nil, fmt.Errorf("%s has no ExecStart", UnitName)
	}
	u.Binary, _ = commands[0][0].(string)
	argv, _ := commands[0][1].([]string)
	u.Config = ConfigOf(argv)
	if !path.IsAbs(u.Binary) || !path.IsAbs(u.Config) || strings.Contains(u.Config, "$") {
		return nil, fmt.Errorf("the command line of %s is %q, which does not say where containerd (%q) and its configuration (%q) are; say --containerd and --containerd-config",
			UnitName, argv, u.Binary, u.Config)
	}
	return u, nil
}

// ConfigOf is the main file that containerd reads with this command line.
func ConfigOf(argv []string) string {
	file := DefaultConfig
	for i, arg := range argv {
		name, value, joined := strings.Cut(arg, "=")
		if name != "-c" && name != "--config" && name != "-config" && name != "--c" {
			continue
		}
		if !joined && i+1 < len(argv) {
			value = argv[i+1]
		}
		file = value
	}
	return file
}

// CheckKillMode refuses a unit whose restart would kill shims, and with them pods. Shims are in the unit's cgroup: `control-group` sends
// them SIGTERM, and `mixed` SIGKILL once the main process has ended (systemd.kill(5)).
func (u *Unit) CheckKillMode() error {
	if u.KillMode == "process" || u.KillMode == "none" {
		return nil
	}
	return fmt.Errorf("%s has KillMode=%s: to restart it would kill the shims of running pods. Set KillMode=process, as containerd's own unit does: "+
		"systemctl edit %s, the lines [Service] and KillMode=process, then systemctl daemon-reload", UnitName, u.KillMode, UnitName)
}

// Restart restarts the unit and waits until systemd has done so, which for containerd's unit (Type=notify) means that it serves.
func (u *Unit) Restart(ctx context.Context) error {
	conn, err := connect(ctx, u.tree)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A unit that failed several times in a row is refused another start until then; that it is in no such state is no error of ours.
	_ = conn.ResetFailedUnitContext(ctx, UnitName)
	done := make(chan string, 1)
	if _, err := conn.RestartUnitContext(ctx, UnitName, "replace", done); err != nil {
		return fmt.Errorf("restart %s: %w", UnitName, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("restart %s: systemd says %q; see journalctl -u %s", UnitName, result, UnitName)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", UnitName, context.Cause(ctx))
	}
}
