// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// bridgePrefix begins the names of the pods' bridges.
const bridgePrefix = "stand"

// gateway is the address of the bridge that the stand's pods hang on: they reach the stand's DNS and web server there.
func (s *Stand) gateway() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 88, byte(s.Version.index()), 1})
}

// Gateway is the host's address as pods see it.
func (s *Stand) Gateway() string { return s.gateway().String() }

// network is the CNI configuration of the pods' bridge. Nothing is masqueraded: there is no way out.
func (s *Stand) network() string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "stand%[1]d", "plugins": [
  {"type": "bridge", "bridge": "%[3]s%[1]d", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": %[2]q, "ranges": [[{"subnet": "10.88.%[1]d.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`, s.Version.index(), filepath.Join(s.Dir, "networks"), bridgePrefix)
}

// Domain is the zone that the stand's DNS server answers: every name in it is the gateway.
const Domain = "stand.test."

// StartServices starts the DNS server and the web server that pods reach at Gateway; names in Domain are the gateway's.
// They live as long as the program, and hold ports 53 and 80 of the stand's network, so critest runs without them. They
// serve on every address, because a bridge's address appears with its first pod.
func StartServices() error {
	dns, err := net.ListenPacket("udp4", ":53")
	if err != nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	listener, err := net.Listen("tcp4", ":80")
	if err != nil {
		_ = dns.Close()
		return fmt.Errorf("web server: %w", err)
	}
	go answer(dns)
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "hello from the stand: %s %s\n", r.Method, r.URL.Path)
		}))
	}()
	return nil
}

// answer serves DNS until the socket is closed. The reply's address is the bridge on which the question came, which is
// the only one that the asking pod can reach; the kernel's choice of source address for the pod is the same one.
func answer(dns net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, peer, err := dns.ReadFrom(buffer)
		if err != nil {
			return
		}
		var question dnsmessage.Message
		if err := question.Unpack(buffer[:n]); err != nil || len(question.Questions) != 1 {
			continue
		}
		q := question.Questions[0]
		reply := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: question.ID, Response: true, Authoritative: true, RecursionDesired: question.RecursionDesired},
			Questions: question.Questions,
		}
		switch {
		case !strings.HasSuffix(strings.ToLower(q.Name.String()), "."+Domain):
			reply.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			address := peer.(*net.UDPAddr).IP.To4()
			reply.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte{address[0], address[1], address[2], 1}},
			}}
		}
		if packed, err := reply.Pack(); err == nil {
			_, _ = dns.WriteTo(packed, peer)
		}
	}
}
