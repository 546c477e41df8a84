// SPDX-License-Identifier: Apache-2.0

// Package config reads the shipper's configuration, /etc/metsuke/ship.toml. It is a file of its own: a mistake in it must stop no pod, and
// what it names, the shims of pods have no business with.
//
// The file is strict, as that of the node is. It has no secrets, only the files that they are in.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/internal/tomlfile"
)

// DefaultPath is where the configuration lies.
const DefaultPath = "/etc/metsuke/ship.toml"

// Version is the version of the file's form that this package reads.
const Version = 1

// ErrAbsent is wrapped by the error of [Load] for a file that does not exist.
var ErrAbsent = errors.New("no such configuration file")

// Config says what is shipped and where to. Its fields are documented in docs/ship.example.toml; all paths are absolute and clean.
type Config struct {
	Audit       string // root of the audit streams
	Checkpoints string // directory
	Sinks       []Sink // one at least, each with a name of its own
}

// Type says of which kind a sink is, and with that which of its tables it has.
type Type string

// The types of sinks.
const (
	TypeOTLP   Type = "otlp"
	TypeKafka  Type = "kafka"
	TypeNATS   Type = "nats"
	TypeFile   Type = "file"
	TypeStdout Type = "stdout"
)

// Form says what is shipped of a record.
type Form string

// The forms.
const (
	FormJSON Form = "json" // the record as it is in its stream
	FormOCSF Form = "ocsf" // one or two events of OCSF
)

// Sink is one place to ship to.
type Sink struct {
	Name    string // a checkpoint.ValidName
	Type    Type
	Form    Form
	Batch   Batch
	Timeout time.Duration // of one attempt to hand a batch over

	OTLP  *OTLP  // TypeOTLP
	Kafka *Kafka // TypeKafka
	NATS  *NATS  // TypeNATS
	File  *File  // TypeFile
}

// Batch bounds what is sent at once. A single record may be larger than Bytes.
type Batch struct {
	Records int
	Bytes   int64
}

// TLS says how a connection is secured. The files are read anew for each connection, so that they can be replaced.
type TLS struct {
	CA         string // certificates of authorities, PEM; empty: the system's
	Cert, Key  string // of the client, PEM; both empty: none
	ServerName string // that the server's certificate must have; empty: the endpoint's host
}

// Default returns a configuration without sinks.
func Default() *Config {
	return &Config{Audit: "/var/log/metsuke/audit", Checkpoints: checkpoint.DefaultDir}
}

// defaultSink is what the file leaves out of a sink.
func defaultSink() Sink {
	return Sink{Form: FormJSON, Batch: Batch{Records: 1000, Bytes: 1 << 20}, Timeout: 30 * time.Second}
}

// Load reads the file at path. The error wraps [ErrAbsent] if there is none; the faults of a file that there is are
// *diagnostic.Errors in one joined error.
func Load(path string) (*Config, error) {
	data, err := tomlfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s: say in it where records are to be shipped", ErrAbsent, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration from data; file is its name in errors.
func Parse(file string, data []byte) (*Config, error) {
	f, err := tomlfile.Parse(file, data, Version)
	if err != nil {
		return nil, err
	}
	c := Default()
	tomlfile.Fill(f, "", f.Doc, c, fields)
	c.Sinks = sinks(f)
	if c.Audit == c.Checkpoints {
		f.Errorf("directories.checkpoints", tomlfile.Show(c.Checkpoints)+" is also directories.audit", "expected a directory of its own")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return c, nil
}
