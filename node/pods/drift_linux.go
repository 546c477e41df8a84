// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/shim/status"
)

// present is what configurations and profiles say now. Each is read once. It is for one goroutine.
type present struct {
	root  string // Node.Root
	files map[string]*chooser
}

// chooser chooses by one configuration file.
type chooser struct {
	set      *profile.Set
	defaults profile.Defaults
	err      error
}

// drift compares what a container has with what the files say now.
func (p *present) drift(configFile string, o *status.Owner) *Drift {
	now, err := p.choose(configFile, o)
	if err != nil {
		return &Drift{Changed: true, Error: err.Error()}
	}
	changed := now.Name != o.Identity.Profile || now.Digest != o.Identity.ProfileDigest
	return &Drift{Changed: changed, Profile: now.Name, Digest: now.Digest}
}

func (p *present) choose(configFile string, o *status.Owner) (*profile.Resolved, error) {
	c := p.files[configFile]
	if c == nil {
		c = &chooser{}
		c.err = c.load(p.root, configFile)
		if p.files == nil {
			p.files = map[string]*chooser{}
		}
		p.files[configFile] = c
	}
	if c.err != nil {
		return nil, c.err
	}
	pod := profile.Pod{Namespace: o.Identity.Namespace, Container: o.Identity.Container, Image: o.Image}
	if o.Asked != nil {
		pod.Annotations = map[string]string{profile.Annotation: *o.Asked}
	}
	now, _, err := c.set.Choose(pod, c.defaults)
	return now, err
}

func (c *chooser) load(root, configFile string) error {
	cfg, err := config.Load(filepath.Join(root, cmp.Or(configFile, config.DefaultPath)))
	if configFile == "" && errors.Is(err, config.ErrAbsent) {
		cfg, err = config.Default(), nil
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	dir := cfg.Directories.Profiles
	cfg.Directories.Profiles = filepath.Join(root, dir)
	files, err := cfg.OpenProfiles()
	if err != nil {
		return err
	}
	c.set, err = profile.Load(files, dir)
	c.defaults = profile.Defaults{Profile: cfg.DefaultProfile, Floor: cfg.Floor}
	return err
}
