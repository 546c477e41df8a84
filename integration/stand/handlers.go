// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit/signature"
)

// Handler is one of Metsuke's runtime handlers: its name in containerd's configuration, and its own files.
type Handler struct {
	Name string
	// Profiles are the documents of its profiles directory, by file name. None: the built-in profiles alone.
	Profiles map[string]string
	// Default is the profile of pods that no binding and no annotation gives one. "" is "baseline".
	Default string
	// Audit and Delegate are added to the tables of these names in its config.toml.
	Audit, Delegate string
	// Placement is where its supervisors run; "" is what Metsuke does by itself under the stand's delegate.
	Placement Placement
	// DefaultPlace puts its config.toml at /etc/metsuke, where the shim looks without being told, and leaves containerd's
	// options table out. Only one handler of a program can have that. (With an options table, containerd 2.x refuses user
	// namespaces under any runtime but runc's.)
	DefaultPlace bool
}

// Placement is where the supervisor of a container runs.
type Placement string

// The placements.
const (
	Host  Placement = "host"
	Guest Placement = "guest"
)

// The handlers that most programs want: Metsuke with its built-in profiles, beside the delegate alone.
const (
	HandlerBaseline    = "metsuke"
	HandlerPassthrough = "metsuke-passthrough"
)

// StandardHandlers are HandlerBaseline and HandlerPassthrough.
func StandardHandlers() []Handler {
	return []Handler{
		{Name: HandlerBaseline},
		{Name: HandlerPassthrough, Profiles: map[string]string{"passthrough.yaml": BindAll("passthrough")}},
	}
}

// BindAll is the document of a binding that gives every pod one profile.
func BindAll(profile string) string {
	return fmt.Sprintf(`apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: everywhere}
spec:
  namespaces: ["*"]
  default: %[1]s
  allowed: [%[1]s]
`, profile)
}

// Directories of a handler, below the stand's.
func (s *Stand) handlerDir(handler string) string { return filepath.Join(s.Dir, "metsuke", handler) }

// defaultConfig is where the shim looks for its configuration without being told.
const defaultConfig = "/etc/metsuke/config.toml"

// ConfigPath is the config.toml of a handler that is not at the default place.
func (s *Stand) ConfigPath(handler string) string {
	return filepath.Join(s.handlerDir(handler), "config.toml")
}

// ProfilesDir is where the handler's profile documents lie; a test may change them at any time.
func (s *Stand) ProfilesDir(handler string) string {
	return filepath.Join(s.handlerDir(handler), "profiles.d")
}

// stateDir is short: the paths of unix sockets below it must stay under 108 bytes (unix(7)).
func (s *Stand) stateDir(handler string) string {
	return fmt.Sprintf("/run/metsuke%d/%s", s.Version.index(), handler)
}

// KeyPath is where the key lies that all handlers sign their streams with.
func (s *Stand) KeyPath() string { return filepath.Join(s.Dir, "audit-key.pem") }

// AuditDir is where the handler's streams lie.
func (s *Stand) AuditDir(handler string) string { return filepath.Join(s.handlerDir(handler), "audit") }

// Event is one record of an audit stream; Fields has all of it.
type Event struct {
	Time      time.Time `json:"time"`
	Seq       uint64    `json:"seq"`
	Container string    `json:"container"`
	Exec      string    `json:"exec"`
	Profile   string    `json:"profile"`
	Kind      string    `json:"kind"`
	Syscall   string    `json:"syscall"`
	Class     string    `json:"class"`
	Verdict   string    `json:"verdict"`
	RuleID    string    `json:"ruleID"`
	Origin    string    `json:"origin"`
	PID       int       `json:"pid"`
	Comm      string    `json:"comm"`

	Fields map[string]any `json:"-"`
	Raw    string         `json:"-"`
}

// StreamDirs are the directories of the pod's streams by container name, under the handler that ran it.
func (p *Pod) StreamDirs(handler string) (map[string]string, error) {
	matches, err := filepath.Glob(filepath.Join(p.stand.AuditDir(handler), "*_"+p.Config.GetMetadata().GetUid(), "*"))
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, match := range matches {
		dirs[filepath.Base(match)] = match
	}
	return dirs, nil
}

// Events reads the audit stream of one of the pod's containers.
func (p *Pod) Events(handler, container string) ([]Event, error) {
	dirs, err := p.StreamDirs(handler)
	if err != nil {
		return nil, err
	}
	dir, ok := dirs[container]
	if !ok {
		return nil, fmt.Errorf("no stream of container %s under %s: %w", container, p.stand.AuditDir(handler), os.ErrNotExist)
	}
	return ReadStream(dir)
}

// Last is the last of a stream's records, but for the one of its end, which comes with the container's Delete.
func Last(events []Event) Event {
	last := events[len(events)-1]
	if last.Kind == "end" && len(events) > 1 {
		return events[len(events)-2]
	}
	return last
}

// tornPatience is how long the last record of a stream may be half there.
const tornPatience = time.Minute

// errTorn says that a stream ends within a record.
var errTorn = errors.New("ends within a record")

// ReadStream reads the audit stream in a directory, all segments, in order. A stream with a gap in seq, or a line that is not a
// whole record, is an error. It may be read while it is written: the kernel shows a write page by page, so an end that is half a
// record is looked at again, and an error only if it stays.
func ReadStream(dir string) ([]Event, error) {
	for end := time.Now().Add(tornPatience); ; time.Sleep(time.Millisecond) {
		events, err := readStream(dir)
		if !errors.Is(err, errTorn) || time.Now().After(end) {
			return events, err
		}
	}
}

func readStream(dir string) ([]Event, error) {
	segments, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		return nil, err
	}
	slices.Sort(segments)
	var events []Event
	for _, segment := range segments {
		content, err := os.ReadFile(segment)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(content) {
			if !bytes.HasSuffix(line, []byte("\n")) {
				return events, fmt.Errorf("%s %w", segment, errTorn)
			}
			event, err := decodeEvent(line)
			if err != nil {
				return events, fmt.Errorf("%s: record %d: %w", segment, len(events)+1, err)
			}
			if len(events) > 0 && event.Seq != events[len(events)-1].Seq+1 {
				return events, fmt.Errorf("%s: seq %d follows %d", segment, event.Seq, events[len(events)-1].Seq)
			}
			events = append(events, event)
		}
	}
	return events, nil
}

func decodeEvent(line []byte) (Event, error) {
	var event Event
	if err := json.Unmarshal(line, &event.Fields); err != nil {
		return event, err
	}
	// Types that differ from what a field is here are an error too: the event's form is a promise.
	if err := json.Unmarshal(line, &event); err != nil {
		return event, err
	}
	event.Raw = strings.TrimSpace(string(line))
	return event, nil
}

// writeHandler writes the handler's directory and returns the path of its config.toml.
func (s *Stand) writeHandler(h Handler) (string, error) {
	if h.Name == "" || h.Name == s.Delegate.Name {
		return "", errors.New("a handler needs a name of its own")
	}
	if h.Default == "" {
		h.Default = "baseline"
	}
	for _, dir := range []string{s.ProfilesDir(h.Name), s.AuditDir(h.Name), s.stateDir(h.Name)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
	}
	for name, content := range h.Profiles {
		if err := os.WriteFile(filepath.Join(s.ProfilesDir(h.Name), name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	if _, err := signature.LoadOrMake(s.KeyPath()); err != nil {
		return "", err
	}
	placement := ""
	if h.Placement != "" {
		placement = fmt.Sprintf("placement = %q\n", h.Placement)
	}
	delegate := s.installed
	config := fmt.Sprintf(`version = 1
default_profile = %q
[delegate]
binary = %q
runtime_type = %q
%s
[delegate.options]
%s
[supervisor]
%shelper = %q
[directories]
profiles = %q
audit = %q
state = %q
[deadlines]
armed = "2m" # emulated machines are slow, and busy ones are: time is not what is tested
[audit]
key = %q
%s`, h.Default, delegate.shim, delegate.runtimeType, h.Delegate, strings.Join(delegate.options, "\n"), placement, Metsuke("metsuke-guest"),
		s.ProfilesDir(h.Name), s.AuditDir(h.Name), s.stateDir(h.Name), s.KeyPath(), h.Audit)
	path := s.ConfigPath(h.Name)
	if h.DefaultPlace {
		path = defaultConfig
		if _, err := os.Stat(path); err == nil {
			return "", fmt.Errorf("%s is there already: only one handler can have it", path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
	}
	return path, os.WriteFile(path, []byte(config), 0o644)
}
