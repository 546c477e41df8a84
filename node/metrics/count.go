// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/tally"
)

// counter is one number of a container: what is counted, and of which names.
type counter struct {
	name string
	of   [2]string
}

// flat lists what was counted, without zeros.
func flat(c *tally.Counts) map[counter]uint64 {
	all := map[counter]uint64{}
	put := func(n uint64, name string, of ...string) {
		key := counter{name: name}
		copy(key.of[:], of)
		if n > 0 {
			all[key] += n
		}
	}
	put(c.Records, "records")
	put(c.Starts, "starts")
	put(c.OOMs, "ooms")
	put(c.Execs, "execs")
	for _, n := range c.Calls {
		put(n.Count, "calls", n.Class, string(n.Verdict))
	}
	for _, n := range c.Denials {
		put(n.Count, "denials", n.Origin, n.RuleID)
	}
	for _, n := range c.Losses {
		put(n.Records, "losses", n.Reason)
		put(n.Missing, "missing", n.Reason)
	}
	for _, n := range c.Limits {
		put(n.Count, "limits", n.Resource)
	}
	return all
}

// show returns the counter as which one is shown: names that nobody knows are the same one.
func (n *names) show(profile string, key counter) counter {
	switch key.name {
	case "calls":
		key.of = [2]string{class(key.of[0]), term(audit.Verdicts(), key.of[1])}
	case "denials":
		key.of[0], key.of[1] = n.rule(profile, key.of[0], key.of[1])
	case "losses", "missing":
		key.of[0] = term(audit.LossReasons(), key.of[0])
	case "limits":
		key.of[0] = resource(key.of[0])
	}
	return key
}

// count adds to the family that a counter is of.
func (m *Metrics) count(handler, profile string, key counter, n uint64) {
	switch key.name {
	case "records":
		m.records.Add(n, handler, profile)
	case "starts":
		m.starts.Add(n, handler, profile)
	case "ooms":
		m.ooms.Add(n, handler, profile)
	case "execs":
		m.execs.Add(n, handler, profile)
	case "stalls":
		m.stalls.Add(n, handler, profile)
	case "calls":
		m.calls.Add(n, handler, profile, key.of[0], key.of[1])
	case "denials":
		m.denials.Add(n, handler, profile, key.of[0], key.of[1])
	case "losses":
		m.losses.Add(n, handler, profile, key.of[0])
	case "missing":
		m.missing.Add(n, handler, profile, key.of[0])
	case "limits":
		m.clamped.Add(n, handler, profile, key.of[0])
	}
}
