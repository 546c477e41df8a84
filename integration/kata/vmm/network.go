// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// podInterface is what CRI has CNI call a pod's interface.
const podInterface = "eth0"

// network is a guest's place in the network of its pod: it has the pod's interface for its own.
type network struct {
	tap     *os.File // the guest's interface; it ends when the last descriptor of it is closed
	mac     net.HardwareAddr
	address *net.IPNet
	gateway net.IP // nil if there is none
}

// openNetwork makes a guest's interface in the network namespace of its pod. It returns nil if there is nothing to be had: no
// namespace, or in it no interface with an address.
func openNetwork(namespace string) (n *network, err error) {
	if namespace == "" {
		return nil, nil
	}
	err = inNamespace(namespace, func() error {
		n, err = joinInterface()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return n, nil
}

// inNamespace calls a function in a network namespace.
func inNamespace(path string, f func() error) error {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	other, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer func() { _ = other.Close() }()
	runtime.LockOSThread()
	err = netns.Set(other)
	if err == nil {
		err = f()
	}
	if back := netns.Set(home); back != nil {
		return errors.Join(err, back) // and the thread, still locked, ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// joinInterface makes a tap and sends what comes in at it out at the pod's interface, and back, past the namespace's own
// addresses, which become the guest's: what Kata's shim does for its local hypervisors (internetworking_model=tcfilter,
// virtcontainers/network_linux.go), and leaves to the daemon of remote ones.
func joinInterface() (*network, error) {
	eth0, err := netlink.LinkByName(podInterface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	addresses, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil || len(addresses) == 0 {
		return nil, err
	}
	routes, err := netlink.RouteList(eth0, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	n := &network{mac: eth0.Attrs().HardwareAddr, address: addresses[0].IPNet}
	for _, route := range routes {
		if route.Dst.IP.IsUnspecified() {
			n.gateway = route.Gw
		}
	}
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP, NonPersist: true,
		Queues: 1, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("make a tap: %w", err)
	}
	n.tap = tap.Fds[0]
	if err := errors.Join(netlink.LinkSetUp(tap), redirect(eth0, tap), redirect(tap, eth0)); err != nil {
		return nil, errors.Join(err, n.tap.Close())
	}
	return n, nil
}

// redirect sends out at one interface what comes in at another:
//
//	tc qdisc add dev FROM ingress
//	tc filter add dev FROM parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev TO
func redirect(from, to netlink.Link) error {
	index := from.Attrs().Index
	if err := netlink.QdiscAdd(&netlink.Ingress{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_INGRESS},
	}); err != nil {
		return fmt.Errorf("take what comes in at %s: %w", from.Attrs().Name, err)
	}
	if err := netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.MakeHandle(0xffff, 0), Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
	}); err != nil {
		return fmt.Errorf("redirect what comes in at %s: %w", from.Attrs().Name, err)
	}
	return nil
}

// files are what QEMU inherits, from descriptor 3 on.
func (n *network) files() []*os.File {
	if n == nil {
		return nil
	}
	return []*os.File{n.tap}
}

// devices are QEMU's arguments. Without the option ROM, because nothing boots from it.
func (n *network) devices() []string {
	if n == nil {
		return nil
	}
	return []string{"-netdev", "tap,id=net,fd=3", "-device", fmt.Sprintf("virtio-net-pci,netdev=net,mac=%s,romfile=", n.mac)}
}

// parameter tells the agent, on the kernel's command line.
func (n *network) parameter() string {
	switch {
	case n == nil:
		return ""
	case n.gateway == nil:
		return fmt.Sprintf(" standin.eth0=%s", n.address)
	}
	return fmt.Sprintf(" standin.eth0=%s,%s", n.address, n.gateway)
}

// close gives the namespace up.
func (n *network) close() error {
	if n == nil {
		return nil
	}
	return n.tap.Close()
}
