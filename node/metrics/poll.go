// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/node/pods"
	"metsuke.dev/metsuke/shim/status"
)

// Unknown is the handler of a container that was gone before it was seen.
const Unknown = "unknown"

// handlerOf names a handler by its configuration file, as `metsuke node install` does.
func handlerOf(file string) string {
	return strings.TrimSuffix(filepath.Base(filepath.Join("/", file)), ".toml")
}

// configs reads the node's configurations; those that cannot be read are the doctor's to tell of. Without any there is the default one.
func (m *Metrics) configs() (all []*config.Config) {
	files, _ := filepath.Glob(filepath.Join(m.root, filepath.Dir(config.DefaultPath), "*.toml")) // the pattern is valid
	for _, file := range files {
		if c, err := config.Load(file); err == nil {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		all = append(all, config.Default())
	}
	return all
}

// Poll asks all shims once, reads what they left, and takes it in. It is called by one goroutine, and blocks for little longer than
// pods.DefaultPatience. The error is about what could not be looked at.
func (m *Metrics) Poll(ctx context.Context) error {
	var states, streams, profiles []string
	configs := m.configs()
	for _, c := range configs {
		states = append(states, c.Directories.State)
		streams = append(streams, c.Directories.Audit)
		profiles = append(profiles, c.Directories.Profiles)
	}
	m.lookAtProfiles(distinct(profiles))
	m.lookAtRetention(distinct(streams))
	m.budget(configs)
	if m.began.IsZero() {
		m.began = m.now()
	}
	var all []pods.Pod
	var errs []error
	for _, dir := range distinct(states) {
		found, err := (&pods.Node{StateDir: dir, Root: m.root}).Live(ctx)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		all = append(all, found...)
	}
	if err := errors.Join(errs...); err != nil {
		return err // to take pods for gone that are not would cost their streams being read
	}
	m.gauge(all)
	m.takePhases(all)
	damages, behind, err := m.follow.update(ctx, all, distinct(streams), m.began)
	for handler, n := range damages {
		m.unreadable.Add(n, handler)
	}
	m.behind.Set(float64(behind))
	m.polled.Set(seconds(m.now()))
	return err
}

func distinct(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// lookAtProfiles notes when they changed, and learns the names of their rules if they did.
func (m *Metrics) lookAtProfiles(dirs []string) {
	var newest time.Time
	for _, dir := range dirs {
		entries, _ := os.ReadDir(filepath.Join(m.root, dir)) // absent: the built-in profiles alone
		times := []string{""}
		for _, e := range entries {
			times = append(times, e.Name())
		}
		for _, name := range times {
			if info, err := os.Stat(filepath.Join(m.root, dir, name)); err == nil && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
		}
	}
	if !newest.IsZero() {
		m.changed.Set(seconds(newest))
	}
	if m.known.asOf == nil || !m.known.asOf.Equal(newest) {
		m.known.learn(m.root, dirs)
		m.known.asOf = &newest
	}
}

// gauge shows what is there now.
func (m *Metrics) gauge(all []pods.Pod) {
	var byPod, byContainer, outdated []exposition.Sample
	oldest := map[[2]string]time.Time{}
	for i := range all {
		p := &all[i]
		handler := podHandler(p)
		profiles := map[string]bool{}
		for _, c := range p.Containers {
			profiles[c.Profile] = true
			byContainer = append(byContainer, exposition.Sample{Value: 1, Labels: []string{handler, c.Profile, c.Placement}})
			if c.Drift == nil || !c.Drift.Changed {
				continue
			}
			outdated = append(outdated, exposition.Sample{Value: 1, Labels: []string{handler, c.Profile}})
			key := [2]string{handler, c.Profile}
			if t, ok := oldest[key]; !ok || c.Created.Before(t) {
				oldest[key] = c.Created
			}
		}
		if len(profiles) == 0 {
			profiles[""] = true // it has no container yet
		}
		for profile := range profiles {
			byPod = append(byPod, exposition.Sample{Value: 1, Labels: []string{handler, profile, string(p.State)}})
			m.foresee(handler, profile)
		}
	}
	created := []exposition.Sample{}
	for key, t := range oldest {
		created = append(created, exposition.Sample{Value: seconds(t), Labels: key[:]})
	}
	m.pods.Replace(byPod...)
	m.containers.Replace(byContainer...)
	m.outdated.Replace(outdated...)
	m.oldest.Replace(created...)
}

// foresee makes the series of what may happen to a profile's containers, so that the first time is seen as an increase.
func (m *Metrics) foresee(handler, profile string) {
	m.known.each(profile, func(origin, rule string) { m.denials.Foresee(handler, profile, origin, rule) })
	if len(m.known.rules[profile]) == 0 {
		return // passthrough, or not known yet
	}
	for _, reason := range audit.LossReasons() {
		m.losses.Foresee(handler, profile, reason.Name)
		m.missing.Foresee(handler, profile, reason.Name)
	}
	m.stalls.Foresee(handler, profile)
	m.starts.Foresee(handler, profile)
	m.unreadable.Foresee(handler)
}

func podHandler(p *pods.Pod) string {
	if p.Shim.Config == "" {
		return handlerOf(config.DefaultPath)
	}
	return handlerOf(p.Shim.Config)
}

// takePhases adds what shims measured since they were asked last.
func (m *Metrics) takePhases(all []pods.Pod) {
	there := map[string]bool{}
	for i := range all {
		p := &all[i]
		there[p.Shim.Dir] = true
		if p.Shim.Phases == nil {
			continue
		}
		before := m.started[p.Shim.Dir]
		m.started[p.Shim.Dir] = p.Shim.Phases
		if before == nil && p.Created.Before(m.began) {
			continue // it was there before we were
		}
		for j, now := range p.Shim.Phases {
			was := status.Phase{}
			if j < len(before) && before[j].Phase == now.Phase {
				was = before[j]
			}
			m.addPhase(podHandler(p), was, now)
		}
	}
	for dir := range m.started {
		if !there[dir] {
			delete(m.started, dir)
		}
	}
}

func (m *Metrics) addPhase(handler string, was, now status.Phase) {
	if !slices.Contains(status.PhaseNames(), now.Phase) || now.Count < was.Count || now.Failed < was.Failed {
		return // of another version, or of another pod
	}
	m.failed.Add(now.Failed-was.Failed, handler, now.Phase)
	buckets := slices.Clone(now.Buckets)
	for i := range min(len(buckets), len(was.Buckets)) {
		buckets[i] -= min(buckets[i], was.Buckets[i])
	}
	m.phases.Add(now.Count-was.Count, max(0, now.Seconds-was.Seconds), buckets, handler, now.Phase)
}
