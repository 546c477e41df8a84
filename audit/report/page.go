// SPDX-License-Identifier: Apache-2.0

package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"time"

	"metsuke.dev/metsuke/audit/verify"
)

// About is what a page says of itself.
type About struct {
	Pod     string    // as it was asked for; records tell its namespace
	Version string    // of Metsuke
	At      time.Time // when the streams were verified
	Keys    []string  // fingerprints of the keys that they were verified with
	OwnKey  bool      // nobody gave a key: it is the node's own
	Chosen  []string  // the flags that chose records; empty: all of the pod's
	Passed  int       // places that could not be read
}

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	page = template.Must(template.New("page").Parse(pageHTML))
	// policy lets the page run and load nothing but its own style and script: what is in a record is inert also where escaping had failed.
	policy = "default-src 'none'; style-src '" + digest(pageCSS) + "'; script-src '" + digest(pageJS) +
		"'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

// digest names a text for a Content-Security-Policy (https://www.w3.org/TR/CSP3/#grammardef-hash-source).
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// view is what the template shows.
type view struct {
	Policy  string
	Style   template.CSS
	Script  template.JS
	Version string

	Title    Text
	Names    []Text // of the first containers
	Others   int    // further ones
	Node     []Text
	Profiles []profile
	From, To *Moment // nil: there is no record
	Length   string
	Chosen   []Text
	Passed   int
	Unknown  string // records of containers that are not shown; empty: none

	Evidence   evidence
	Tiles      []tile
	Containers []containerView

	Plot      plot
	Trees     []treeView
	Hidden    string // processes that have no lane; empty: none
	Denials   table
	Addresses table
	Removed   table
	Written   table
	Sessions  table
	Pressure  table
	Gaps      table
	Classes   table
	Programs  table
}

// profile is a profile that was in force.
type profile struct{ Name, Digest Text }

// tile is one number to see at first sight.
type tile struct {
	Number, Of, Href string
	Note             string
	Bad              bool
}

// containerView is a stream.
type containerView struct {
	Name      Text
	Pod       Text // its directory's name, which has the pod's UID
	Records   string
	Instances []instanceView
	More      uint64
}

type instanceView struct {
	ID       Text
	From, To *Moment
	Profile  profile
	Receipt  []Text // nil: what was read has no receipt
	Limits   []Text
	End      *Text // nil: no record says how it ended
}

// Write writes the page. It is the same for the same records.
func (r *Report) Write(w io.Writer, a About) error {
	return page.Execute(w, r.view(a))
}

func (r *Report) view(a About) *view {
	sums := r.stats.Page(maxRows)
	v := &view{
		Policy: policy, Style: template.CSS(pageCSS), Script: template.JS(pageJS),
		Version: a.Version, Title: r.title(a.Pod), Chosen: texts(a.Chosen), Passed: a.Passed,
	}
	if r.unknown > 0 {
		v.Unknown = many(r.unknown, "record")
	}
	s := newScale(sums.From, sums.To)
	if sums.Records > 0 {
		v.From, v.To, v.Length = s.day(nanos(*sums.From)), s.day(nanos(*sums.To)), length(nanos(*sums.To)-nanos(*sums.From))
	}
	v.Evidence = r.evidence(a, s)
	v.Node, v.Profiles = r.identities()
	v.Containers = r.containerViews(s)
	for _, c := range v.Containers[:min(len(v.Containers), maxNamed)] {
		v.Names = append(v.Names, c.Name)
	}
	v.Others = len(v.Containers) - len(v.Names)
	v.Plot = r.plot(s)
	v.Trees, v.Hidden = r.trees(s)
	v.Denials, v.Addresses = r.denialTable(s), r.addressTable(s)
	v.Removed = r.fileTable(s, &r.removed, "metsuke audit query --class file-delete")
	v.Written = r.fileTable(s, &r.written, "metsuke audit query --class file-write")
	v.Sessions, v.Pressure, v.Gaps = r.sessionTable(s), r.pressureTable(s), r.gapTable(s)
	v.Classes, v.Programs = classTable(sums), programTable(sums)
	v.Tiles = r.tiles(sums)
	return v
}

// title is the pod's namespace and name, as records tell them, or else as it was asked for.
func (r *Report) title(asked string) Text {
	for _, c := range r.containers {
		if c.records > 0 {
			return text(c.id.Namespace + "/" + c.id.Pod)
		}
	}
	return text(asked)
}

// identities returns the nodes and profiles of all instances.
func (r *Report) identities() (nodes []Text, profiles []profile) {
	haveNode, haveProfile := map[Text]bool{}, map[profile]bool{}
	for _, c := range r.containers {
		for _, i := range c.instances {
			if node := text(i.id.Node); !haveNode[node] {
				haveNode[node] = true
				nodes = append(nodes, node)
			}
			if p := profileOf(i); !haveProfile[p] {
				haveProfile[p] = true
				profiles = append(profiles, p)
			}
		}
	}
	return nodes[:min(len(nodes), maxNamed)], profiles[:min(len(profiles), maxNamed)]
}

// maxNamed bounds lists in the heading. There is one of each as a rule.
const maxNamed = 4

func profileOf(i *instance) profile {
	return profile{text(i.id.Profile), short(i.id.ProfileDigest)}
}

const shownDigest = 12 // characters of a digest, or of an id

func (r *Report) containerViews(s *scale) []containerView {
	var out []containerView
	for _, c := range r.containers {
		cv := containerView{Name: r.named(c.number), Pod: text(c.of.Pod), Records: many(c.records, "record"), More: c.more}
		for _, i := range c.instances {
			iv := instanceView{ID: short(i.id.ContainerID), From: s.at(i.from), To: s.at(i.to), Profile: profileOf(i), End: i.exit}
			if rec := i.receipt; rec != nil {
				iv.Receipt = []Text{rec.image, rec.delegate, text("supervisor: " + rec.placement.S), text("kernel " + rec.kernel.S)}
				if rec.noNewPrivileges {
					iv.Receipt = append(iv.Receipt, text("no new privileges"))
				}
				iv.Limits = rec.limits
			}
			cv.Instances = append(cv.Instances, iv)
		}
		out = append(out, cv)
	}
	return out
}

// name is what a container is called: as its last record says, or else its directory.
func (c *container) name() string {
	if c.id.Container != "" {
		return c.id.Container
	}
	return c.of.Container
}

// named returns the name of a container by its number. Where another pod of the name has one that is called the same, it says of which pod.
func (r *Report) named(number int) Text {
	if number >= len(r.containers) {
		return Text{S: "(others)"}
	}
	c := r.containers[number]
	for _, other := range r.containers {
		if other != c && other.name() == c.name() {
			return text(c.name() + " of pod " + head(c.id.PodUID, shownDigest))
		}
	}
	return text(c.name())
}

// judged is a verdict of verification as a word, and as a class of the page's style.
func judged(s verify.Severity) (word, class string) {
	switch s {
	case verify.Fault:
		return "FAULT", "bad"
	case verify.Unjudged:
		return "undecided", "open"
	}
	return "proven", "good"
}
