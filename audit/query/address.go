// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/audit/index"
)

// Address is a pattern of addresses of sockets: an IP address or network, a port, or both; or a Path that fits an address of another
// family, such as unix:/run/**.
type Address struct {
	text    string
	network netip.Prefix // not valid: any
	port    uint16
	anyPort bool
	other   *Path // if it is not one of the internet's
}

var errAddress = errors.New("must be an address or a network (10.0.0.7, 10.0.0.0/8, fd00::/8), a port (:443), both (10.0.0.0/8:443, [fd00::/8]:443), " +
	"or a pattern with a family (unix:/run/**, unix-abstract:*, vsock:*)")

// ParseAddress reads a pattern.
func ParseAddress(text string) (Address, error) {
	a := Address{text: text, anyPort: true}
	host, port, hasPort := text, "", false
	if bracketed, ok := strings.CutPrefix(text, "["); ok {
		inside, behind, ok := strings.Cut(bracketed, "]")
		port, hasPort = strings.CutPrefix(behind, ":")
		if !ok || behind != "" && !hasPort {
			return Address{}, errAddress
		}
		host = inside
	} else if strings.Count(text, ":") == 1 {
		host, port, hasPort = strings.Cut(text, ":")
	}
	if family, _, ok := strings.Cut(text, ":"); ok && isFamily(family) {
		p, err := ParsePath(text)
		if err != nil {
			return Address{}, err
		}
		a.other = &p
		return a, nil
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return Address{}, errAddress
		}
		a.port, a.anyPort = uint16(n), false
	}
	if host == "" && hasPort {
		return a, nil
	}
	var err error
	if a.network, err = parseNetwork(host); err != nil {
		return Address{}, errAddress
	}
	return a, nil
}

// isFamily tells whether the addresses of a family other than the internet's begin with s, as records have them.
func isFamily(s string) bool {
	switch s {
	case "unix", "unix-abstract", "netlink", "vsock", "packet":
		return true
	}
	return strings.HasPrefix(s, "AF_")
}

func parseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, errAddress
		}
		return ip.Unmap().Prefix(ip.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// String returns the pattern as it was read.
func (a Address) String() string { return a.text }

// Equal tells whether two are the same pattern.
func (a Address) Equal(o Address) bool { return a.text == o.text }

// Match tells whether the address of a socket, as a record has it, fits. An IPv4 address that is mapped into IPv6 fits as IPv4.
func (a Address) Match(s string) bool {
	if a.other != nil {
		return a.other.fits(s)
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		return false
	}
	return (a.anyPort || at.Port() == a.port) && (!a.network.IsValid() || a.network.Contains(at.Addr().Unmap().WithZone("")))
}

// mayBeIn tells whether a segment can have a record with an address that fits.
func (a Address) mayBeIn(s *index.Summary) bool {
	if a.other != nil {
		family, _, ok := strings.Cut(a.other.prefix, ":")
		return !ok || s.Has(index.Family, family)
	}
	return (a.anyPort || s.HasPort(a.port)) && (!a.network.IsValid() || s.HasNetwork(a.network))
}
