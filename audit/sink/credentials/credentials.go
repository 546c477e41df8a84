// SPDX-License-Identifier: Apache-2.0

// Package credentials reads what sinks show to the far side: certificates, keys, tokens, passwords. All of it is in files, which are read
// anew for each connection, or request, so that they can be replaced while the shipper runs. Nothing that is in them is in an error.
package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/shipper/config"
)

// maxFile bounds a file, in bytes.
const maxFile = 1 << 20

// TLS returns what one connection to host (a name or an address, without a port) is to be secured with. Its files are read now: call it for each
// connection. It is safe for concurrent use.
func TLS(c *config.TLS, host string) (*tls.Config, error) {
	out := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c == nil {
		return out, nil
	}
	if c.ServerName != "" {
		out.ServerName = c.ServerName
	}
	if c.CA != "" {
		data, err := read(c.CA, false)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s has no certificate in PEM", c.CA)
		}
	}
	if c.Cert != "" {
		cert, err := pair(c)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}

func pair(c *config.TLS) (tls.Certificate, error) {
	cert, err := read(c.Cert, false)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := read(c.Key, true)
	if err != nil {
		return tls.Certificate{}, err
	}
	both, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return both, fmt.Errorf("%s and %s: %w", c.Cert, c.Key, err) // which says what is wrong, and nothing of the key
	}
	return both, nil
}

// Secret reads a file with a password, a token or the like, without the blanks and newlines around it. It is refused when others than its
// owner and its group can read it, or it is empty.
func Secret(path string) (string, error) {
	data, err := read(path, true)
	if err != nil {
		return "", err
	}
	secret := bytes.TrimSpace(data)
	if len(secret) == 0 {
		return "", fmt.Errorf("%s is empty", path)
	}
	return string(secret), nil
}

// read reads a regular file. Links are followed: Kubernetes puts secrets behind them.
func read(path string, secret bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s: not a file, or larger than %d bytes", path, maxFile)
	case secret && info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s: mode %#o: everybody on this machine can use it; chmod o= it", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New(path + " grows while it is read")
	}
	return data, err
}
