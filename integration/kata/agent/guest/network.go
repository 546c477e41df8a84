// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
)

// upNetwork brings the loopback up, and eth0 if the kernel's command line says standin.eth0=ADDRESS/PREFIX or
// standin.eth0=ADDRESS/PREFIX,GATEWAY. The real agent learns that by UpdateInterface and UpdateRoutes, but from a shim that has
// set the host's end up itself, which the shim does not do for remote machines.
func upNetwork() error {
	if _, err := up("lo"); err != nil {
		return err
	}
	text, err := Option("standin.eth0")
	if err != nil || text == "" {
		return err
	}
	return upInterface("eth0", text)
}

// upInterface gives an interface an address and, if there is one, a gateway: ADDRESS/PREFIX[,GATEWAY].
func upInterface(name, text string) error {
	prefix, way, routed := strings.Cut(text, ",")
	address, err := netlink.ParseAddr(prefix)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	gateway := net.ParseIP(way)
	if routed && gateway == nil {
		return fmt.Errorf("%s: %q is not an address", name, way)
	}
	link, err := up(name)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, address); err != nil {
		return fmt.Errorf("%s: add %s: %w", name, prefix, err)
	}
	if !routed {
		return nil
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway}); err != nil {
		return fmt.Errorf("%s: route by %s: %w", name, way, err)
	}
	return nil
}

func up(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return link, nil
}
