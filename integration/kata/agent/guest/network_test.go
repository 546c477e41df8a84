// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestUpInterface(t *testing.T) {
	for _, test := range []struct {
		text              string
		addresses, routes []string // of eth0; nil: an error
	}{
		{"10.9.0.2/24", []string{"10.9.0.2/24"}, []string{"10.9.0.0/24 by <nil>"}},
		{"10.9.0.2/24,10.9.0.1", []string{"10.9.0.2/24"}, []string{"0.0.0.0/0 by 10.9.0.1", "10.9.0.0/24 by <nil>"}},
		{"10.9.0.2", nil, nil},
		{"10.9.0.2/33", nil, nil},
		{"10.9.0.2/24,", nil, nil},
		{"10.9.0.2/24,gateway", nil, nil},
		{"10.9.0.2/24,10.8.0.1", nil, nil}, // cannot be reached
	} {
		t.Run(test.text, func(t *testing.T) {
			addresses, routes, err := inNewNamespace(t, test.text)
			if test.addresses == nil {
				if err == nil {
					t.Errorf("was accepted: %v, %v", addresses, routes)
				}
				return
			}
			if err != nil || !slices.Equal(addresses, test.addresses) || !slices.Equal(routes, test.routes) {
				t.Errorf("addresses %q, want %q; routes %q, want %q; %v", addresses, test.addresses, routes, test.routes, err)
			}
		})
	}
}

// inNewNamespace brings an eth0 up in a network namespace of its own, and tells what it then has.
func inNewNamespace(t *testing.T, text string) (addresses, routes []string, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for ever: the thread, and with it the namespace, end with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}
		if err = netlink.LinkAdd(eth0); err != nil {
			return
		}
		var peer netlink.Link
		if peer, err = netlink.LinkByName("peer"); err != nil {
			return
		}
		if err = netlink.LinkSetUp(peer); err != nil {
			return
		}
		if err = upInterface("eth0", text); err != nil {
			return
		}
		foundAddresses, addressErr := netlink.AddrList(eth0, netlink.FAMILY_V4)
		foundRoutes, routeErr := netlink.RouteList(eth0, netlink.FAMILY_V4)
		err = errors.Join(addressErr, routeErr)
		for _, a := range foundAddresses {
			addresses = append(addresses, a.IPNet.String())
		}
		for _, r := range foundRoutes {
			routes = append(routes, r.Dst.String()+" by "+r.Gw.String())
		}
	}()
	<-done
	slices.Sort(routes)
	return addresses, routes, err
}
