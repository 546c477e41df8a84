// SPDX-License-Identifier: Apache-2.0

// Package config reads a node's configuration, /etc/metsuke/config.toml.
//
// The file is strict: an unknown field, a wrong type, a value out of bounds or trailing data is refused with file, line
// and field, all faults of the file at once. What it leaves out has the value that [Default] gives, so a file
// that says only `version = 1` means the same as no file.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"metsuke.dev/metsuke/internal/tomlfile"
)

// DefaultPath is where the configuration lies when the runtime's options name no other.
const DefaultPath = "/etc/metsuke/config.toml"

// Version is the version of the file's form that this package reads.
const Version = 1

// ErrAbsent is wrapped by the error of [Load] for a file that does not exist. A caller that was not told to read this
// very file goes on with [Default]; one that was must fail.
var ErrAbsent = errors.New("no such configuration file")

// Config is the configuration of one RuntimeClass on one node. Its fields are documented in
// docs/config.example.toml; all paths are absolute and clean.
type Config struct {
	Version        int
	DefaultProfile string // profile of namespaces that no binding names
	Floor          string // profile that every pod gets on top of its own; empty: none
	Delegate       Delegate
	Supervisor     Supervisor
	Deadlines      Deadlines
	Directories    Directories
	Audit          Audit
}

// Delegate is the shim that really runs the pods.
type Delegate struct {
	RuntimeType string // containerd's name of it: "io.containerd.runc.v2"
	Binary      string // absolute path, or a name to look for beside our own binary and in $PATH; never empty

	// The delegate's own options, by the family that RuntimeType belongs to: exactly one is not nil.
	Runc *RuncOptions
	Kata *KataOptions
}

// RuncOptions is the allow-listed part of containerd.runc.v1.Options (containerd/api/types/runc/options), with its names.
// A zero field leaves the delegate's default.
type RuncOptions struct {
	BinaryName    string // runtime binary, runc if empty
	Root          string // runtime's state directory
	SystemdCgroup bool
	ShimCgroup    string // cgroup to put the delegate into
	NoPivotRoot   bool   // for a root file system on a ramdisk
	NoNewKeyring  bool
	IoUid         uint32
	IoGid         uint32
	CriuImagePath string
	CriuWorkPath  string
}

// KataOptions is the allow-listed part of runtimeoptions.v1.Options for Kata's shims, and what is ours beside it.
type KataOptions struct {
	ConfigPath string // Kata's configuration file; its own default if empty

	// AllowedAnnotations are Kata's annotations, by their whole keys, that pods may set although they change what Metsuke
	// relies on.
	AllowedAnnotations []string
}

// Placement is where the supervisor of a container runs.
type Placement string

// The placements.
const (
	PlacementHost  Placement = "host"  // in the shim: the container's kernel is the node's
	PlacementGuest Placement = "guest" // in the container's guest, reached through the delegate
)

// Supervisor says where the supervisor runs and what is mounted into containers.
type Supervisor struct {
	Placement Placement // never empty: host for runc, guest for Kata unless the file says otherwise
	Helper    string    // absolute path of metsuke-guest; empty: beside the shim's own binary
}

// Deadlines bound what Metsuke adds to a request, never what the delegate itself may take.
type Deadlines struct {
	Armed  time.Duration // from the launcher's start until its workload may exec
	Start  time.Duration // until a started delegate answers
	Delete time.Duration // for the cleanup of a pod whose shim is gone
}

// Directories are Metsuke's places on the node.
type Directories struct {
	Profiles string // *.yaml of AgentProfiles and ProfileBindings
	Audit    string // root of the audit streams
	State    string // sockets and records of running pods; on a tmpfs

	// ProfilesNamed is true when the file names Profiles, so that its absence is an error.
	ProfilesNamed bool
}

// Audit are the settings of streams that belong to the node rather than to a profile.
type Audit struct {
	SegmentSize  int64         // bytes after which a stream goes on in a new segment
	StallTimeout time.Duration // how long a write may stall before onLoss, where the profile does not say
	SegmentAge   time.Duration // of a segment's first record, after which a stream goes on in a new one; 0: whatever its age
	PodBudget    int64         // bytes that the streams of a pod may take on the disk; 0: no bound
	NodeBudget   int64         // and those of all pods together; 0: no bound
	Retention    Retention
	Key          string // file of the key that streams are signed with

	// KeyNamed is true when the file names Key, so that its absence is an error; otherwise it is made on first use.
	KeyNamed bool
}

// Retention says what "metsuke audit retain" compresses and removes.
type Retention struct {
	MaxAge      time.Duration // after which a record is removed; 0: whatever its age
	PodSize     int64         // bytes beyond which the oldest records of a pod are removed; 0: no bound
	NodeSize    int64         // and those of all pods together; 0: no bound
	Compress    bool
	Shipped     []string // sinks that must have confirmed a record before it is removed
	Checkpoints string   // directory where the shipper says what they have confirmed
}

// Default returns what holds without a file.
func Default() *Config {
	return &Config{
		Version:        Version,
		DefaultProfile: "baseline",
		Delegate: Delegate{
			RuntimeType: "io.containerd.runc.v2",
			Binary:      "containerd-shim-runc-v2",
			Runc:        &RuncOptions{},
		},
		Supervisor:  Supervisor{Placement: PlacementHost},
		Deadlines:   Deadlines{Armed: 10 * time.Second, Start: 20 * time.Second, Delete: 4 * time.Second},
		Directories: Directories{Profiles: "/etc/metsuke/profiles.d", Audit: "/var/log/metsuke/audit", State: "/run/metsuke"},
		Audit: Audit{
			SegmentSize: 64 << 20, SegmentAge: 24 * time.Hour, PodBudget: 8 << 30, StallTimeout: 10 * time.Second, Key: "/var/lib/metsuke/audit-key.pem",
			Retention: Retention{Compress: true, Checkpoints: "/var/lib/metsuke/ship"},
		},
	}
}

// Load reads the file at path. The error wraps [ErrAbsent] if there is none; the faults of a file that there is are
// *diagnostic.Errors in one joined error.
func Load(path string) (*Config, error) {
	data, err := tomlfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrAbsent, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// LoadOrDefault reads the file at path if it is not empty; it must exist then. Otherwise it reads [DefaultPath], or
// returns [Default] if there is no file.
func LoadOrDefault(path string) (*Config, error) {
	if path != "" {
		return Load(path)
	}
	c, err := Load(DefaultPath)
	if errors.Is(err, ErrAbsent) {
		return Default(), nil
	}
	return c, err
}

// OpenProfiles returns the directory of profiles for profile.Load, or nil if it is absent and the file does not
// name it: then only built-in profiles exist.
func (c *Config) OpenProfiles() (fs.FS, error) {
	dir := c.Directories.Profiles
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.Directories.ProfilesNamed:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("profiles directory: %w; create it or correct directories.profiles", err)
	case !st.IsDir():
		return nil, fmt.Errorf("profiles directory: %s is not a directory; correct directories.profiles", dir)
	}
	return os.DirFS(dir), nil
}
