// SPDX-License-Identifier: Apache-2.0

// Package ocsf writes records as events of the Open Cybersecurity Schema Framework (https://schema.ocsf.io), with its profiles container,
// host, linux_users and security_control. docs/ocsf.md says which record becomes which event.
//
// Each record becomes one event of what happened. A call that was denied or killed becomes a second one, a detection finding, which
// names the first. What OCSF has no attribute for stands under "unmapped", so that nothing is left out.
package ocsf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/timeline"
)

// Version is that of the schema.
const Version = "1.8.0"

// text is a string of a record's.
type text = record.Text

// Append appends the events of a record, each with a newline.
func Append(dst []byte, r *record.Record) []byte {
	row := rowOf(&r.Event)
	e := begin(r, row.Class, row.Activity)
	if row.fill != nil {
		row.fill(e, r)
	}
	dst = appendEvent(dst, e)
	if c := r.Event.Syscall; c != nil && c.Verdict != audit.VerdictAllowed {
		dst = appendEvent(dst, finding(r, e))
	}
	return dst
}

func appendEvent(dst []byte, e *event) []byte {
	out := bytes.NewBuffer(dst)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil { // nothing in it can fail
		panic(err)
	}
	return out.Bytes()
}

// begin returns an event with what all have.
func begin(r *record.Record, c class, a activity) *event {
	id := &r.Identity
	e := &event{
		ActivityID: a.ID, ActivityName: a.Name,
		CategoryUID: c.Category, CategoryName: categories[c.Category], ClassUID: c.UID, ClassName: c.Name,
		TypeUID: 100*c.UID + a.ID, TypeName: c.Name + ": " + a.Name,
		Time: r.Event.Time.UnixMilli(), Message: text(timeline.Body(nil, &r.Event)),
		Metadata: metadata{
			Version: Version, Product: product{Name: "Metsuke", VendorName: "Metsuke"},
			Profiles: []string{"container", "host", "linux/linux_users", "security_control"},
			UID:      text(uidOf(r)), Sequence: r.Seq, EventCode: text(r.Event.Kind),
			LogName: text(id.Namespace + "/" + id.Pod + "/" + id.Container), OriginalTime: r.Event.Time.UTC().Format("2006-01-02T15:04:05.000000000Z"),
		},
		Device: deviceOf(id),
		Unmapped: unmapped{
			Exec: text(r.Event.Exec), Profile: text(id.Profile), ProfileDigest: text(id.ProfileDigest), Chain: text(r.Chain),
		},
	}
	if a.ID == other {
		e.TypeName = c.Name + ": Other"
	}
	e.severity(informational)
	if id.Profile != "" {
		e.Policy = &policy{Name: text(id.Profile), UID: text(id.ProfileDigest)}
	}
	if c := r.Event.Syscall; c != nil {
		e.call(r, c)
	}
	return e
}

// uidOf is a name of a record that no other record has.
func uidOf(r *record.Record) string {
	id := &r.Identity
	pod := id.PodUID
	if pod == "" {
		pod = id.Namespace + "/" + id.Pod
	}
	return id.Node + "/" + pod + "/" + id.Container + "/" + strconv.FormatUint(r.Seq, 10)
}

// call sets what the events of all calls have.
func (e *event) call(r *record.Record, c *audit.Syscall) {
	e.Actor = &actor{Process: processOf(c)}
	if r.Event.Exec != "" {
		e.Actor.Session = &session{UID: text(r.Event.Exec)}
	}
	if c.Count > 1 {
		until := c.Until.UnixMilli()
		e.Count, e.StartTime, e.EndTime = c.Count, &e.Time, &until
	}
	switch c.Verdict {
	case audit.VerdictAllowed: // whether it succeeded is not known
		e.status(0, "Unknown")
		e.action(1, "Allowed", 1, "Allowed")
	default:
		e.status(2, "Failure")
		e.action(2, "Denied", 2, "Blocked")
		e.StatusCode = text(c.Errno)
		e.severity(medium)
	}
	if c.Verdict == audit.VerdictKilled {
		e.StatusDetail = "the process was killed"
		e.severity(high)
	}
	u := &e.Unmapped
	u.Class, u.Verdict, u.RuleID, u.Origin, u.Arch, u.Nr = text(c.Class), text(c.Verdict), text(c.RuleID), text(c.Origin), text(c.Arch), &c.Nr
	for _, a := range c.Args {
		u.Args = append(u.Args, argument{text(a.Name), text(a.Value), text(a.Evidence), a.Truncated})
	}
}

// finding is the second event of a call that was not carried out.
func finding(r *record.Record, of *event) *event {
	c := r.Event.Syscall
	e := begin(r, detectionFinding, activity{1, "Create"})
	e.Metadata.UID += "/finding"
	e.Actor = nil
	rule := c.RuleID
	if rule == "" {
		rule = c.Origin + " (default)"
	}
	e.FindingInfo = &findingInfo{
		UID: e.Metadata.UID, Title: text(fmt.Sprintf("%s was %s by %s", c.Syscall, c.Verdict, rule)),
		Analytic:      &analytic{TypeID: 1, Type: "Rule", Name: text(rule), UID: text(rule), Category: text(c.Origin)},
		FirstSeenTime: e.Time, LastSeenTime: e.Time,
		RelatedEvents: []relatedEvent{{UID: of.Metadata.UID, TypeUID: of.TypeUID, TypeName: of.TypeName}},
	}
	if c.Count > 1 {
		e.FindingInfo.LastSeenTime = c.Until.UnixMilli()
	}
	e.Evidences = []evidences{{Actor: of.Actor, Process: of.Process, File: of.File, SrcEndpoint: of.SrcEndpoint, DstEndpoint: of.DstEndpoint}}
	e.status(1, "New")
	e.StatusCode, e.StatusDetail = "", ""
	e.Confidence, e.ConfidenceID = "High", pointer(3) // a verdict rests on what the kernel acts on
	e.IsAlert = true
	return e
}

// Severities of OCSF.
const (
	informational = 1
	low           = 2
	medium        = 3
	high          = 4
)

func (e *event) severity(id int) {
	e.SeverityID, e.Severity = id, []string{informational: "Informational", low: "Low", medium: "Medium", high: "High"}[id]
}

func (e *event) status(id int, name string) { e.StatusID, e.Status = pointer(id), name }

func (e *event) action(id int, name string, disposition int, dispositionName string) {
	e.ActionID, e.Action, e.DispositionID, e.Disposition = pointer(id), name, pointer(disposition), dispositionName
}

func pointer[T any](v T) *T { return &v }
