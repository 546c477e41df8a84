// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	hypervisor "github.com/kata-containers/kata-containers/src/runtime/protocols/hypervisor"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace that lives as long as the test, and returns its path. With an address it has eth0, the
// other end of which is "peer"; with a gateway too a default route.
func newNamespace(t *testing.T, address, gateway string) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = home.Close() }()
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = namespace.Close() })
	if err := errors.Join(addInterface(address, gateway), netns.Set(home)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), namespace)
}

func addInterface(address, gateway string) error {
	if address == "" {
		return nil
	}
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}
	if err := netlink.LinkAdd(eth0); err != nil {
		return err
	}
	peer, err := netlink.LinkByName("peer")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(eth0), netlink.LinkSetUp(peer)); err != nil || address == "none" {
		return err
	}
	parsed, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(eth0, parsed); err != nil || gateway == "" {
		return err
	}
	_, anywhere, err := net.ParseCIDR("0.0.0.0/0")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: anywhere, Gw: net.ParseIP(gateway)})
}

func TestOpenNetwork(t *testing.T) {
	for _, test := range []struct{ name, namespace, parameter string }{
		{"no namespace", "", ""},
		{"no interface", newNamespace(t, "", ""), ""},
		{"no address", newNamespace(t, "none", ""), ""},
		{"no gateway", newNamespace(t, "10.9.0.2/24", ""), " standin.eth0=10.9.0.2/24"},
		{"all", newNamespace(t, "10.9.0.2/24", "10.9.0.1"), " standin.eth0=10.9.0.2/24,10.9.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := openNetwork(test.namespace)
			if err != nil || n.parameter() != test.parameter {
				t.Fatalf("the agent is told %q, want %q; %v", n.parameter(), test.parameter, err)
			}
			if has := test.parameter != ""; (len(n.files()) == 1) != has || (len(n.devices()) > 0) != has {
				t.Errorf("QEMU gets %q, and %v", n.devices(), n.files())
			}
			if err := n.close(); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := openNetwork("/proc/self/cmdline"); err == nil {
		t.Error("a network was opened in what is no namespace")
	}
}

// What the guest sends reaches the pod's network, and what comes from there reaches the guest.
func TestNetworkCarries(t *testing.T) {
	namespace := newNamespace(t, "10.9.0.2/24", "10.9.0.1")
	n, err := openNetwork(namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.close() }()
	peer := listenPeer(t, namespace)

	broadcast := bytes.Repeat([]byte{0xff}, 6)
	frame := func(text string) []byte {
		return bytes.Join([][]byte{broadcast, n.mac, {0x88, 0xb5}, []byte(text)}, nil) // a type for experiments
	}
	header := make([]byte, 10) // struct virtio_net_hdr
	buffer := make([]byte, 2048)
	// The kernel begins a little later to send by a link that has come up, and drops what is sent before.
	end := time.Now().Add(time.Minute)
	for got := []byte(nil); !bytes.HasPrefix(got, frame("from the guest")); { // among what IPv6 says by itself
		if _, err := n.tap.Write(append(header, frame("from the guest")...)); err != nil {
			t.Fatal(err)
		}
		size, _, err := unix.Recvfrom(peer, buffer, 0)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			t.Fatalf("nothing came from the guest: %v", err)
		}
		got = buffer[:max(size, 0)]
	}
	if _, err := unix.Write(peer, frame("to the guest")); err != nil {
		t.Fatal(err)
	}
	if err := n.tap.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for got := []byte(nil); !bytes.Contains(got, frame("to the guest")); {
		size, err := n.tap.Read(buffer)
		if err != nil {
			t.Fatalf("nothing came to the guest: %v", err)
		}
		got = buffer[:size]
	}
}

// listenPeer opens a socket for the frames at the other end of eth0.
func listenPeer(t *testing.T, namespace string) (socket int) {
	t.Helper()
	if err := inNamespace(namespace, func() error {
		peer, err := netlink.LinkByName("peer")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(socket) })
		if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
			return err
		}
		return unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: peer.Attrs().Index})
	}); err != nil {
		t.Fatal(err)
	}
	return socket
}

// QEMU has the tap, in a second boot too, and nobody has it when the machine has been stopped.
func TestMachineOnNetwork(t *testing.T) {
	namespace := newNamespace(t, "10.9.0.2/24", "10.9.0.1")
	dir, _ := startDaemon(t, `[ "$(readlink /proc/$$/fd/3)" = /dev/net/tun ] || exec sleep 1000; echo "$@"; `+bootsLater, time.Hour)
	c := client(t, dir)
	request := machineOf("one")
	request.NetworkNamespacePath = namespace
	if _, err := c.CreateVM(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartVM(t.Context(), &hypervisor.StartVMRequest{Id: "one"}); err != nil {
		t.Fatal(err)
	}
	console, err := os.ReadFile(dir + "/logs/one.console")
	for _, want := range []string{" standin.eth0=10.9.0.2/24,10.9.0.1 ", ",fd=3 ", "virtio-net-pci,netdev=net,mac="} {
		if strings.Count(string(console), want) != 2 {
			t.Errorf("%q is not in both command lines: %s, %v", want, console, err)
		}
	}
	if !hasLink(t, namespace, "tap0") {
		t.Error("there is no tap")
	}
	if _, err := c.StopVM(t.Context(), &hypervisor.StopVMRequest{Id: "one"}); err != nil {
		t.Fatal(err)
	}
	if hasLink(t, namespace, "tap0") {
		t.Error("the tap is left")
	}
}

func hasLink(t *testing.T, namespace, name string) bool {
	t.Helper()
	err := inNamespace(namespace, func() error {
		_, err := netlink.LinkByName(name)
		return err
	})
	if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		t.Fatal(err)
	}
	return err == nil
}
