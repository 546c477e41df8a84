// SPDX-License-Identifier: Apache-2.0

package ocsf

import (
	"path"
	"regexp"
	"strconv"

	"metsuke.dev/metsuke/audit"
)

// The types here have those attributes of OCSF's classes and objects that are set, under OCSF's names.

type event struct {
	ActivityID   int      `json:"activity_id"`
	ActivityName string   `json:"activity_name"`
	CategoryUID  int      `json:"category_uid"`
	CategoryName string   `json:"category_name"`
	ClassUID     int      `json:"class_uid"`
	ClassName    string   `json:"class_name"`
	TypeUID      int      `json:"type_uid"`
	TypeName     string   `json:"type_name"`
	Time         int64    `json:"time"` // milliseconds since 1970, as all times
	StartTime    *int64   `json:"start_time,omitempty"`
	EndTime      *int64   `json:"end_time,omitempty"`
	Count        uint64   `json:"count,omitempty"`
	SeverityID   int      `json:"severity_id"`
	Severity     string   `json:"severity"`
	StatusID     *int     `json:"status_id,omitempty"`
	Status       string   `json:"status,omitempty"`
	StatusCode   text     `json:"status_code,omitempty"`
	StatusDetail text     `json:"status_detail,omitempty"`
	Message      text     `json:"message,omitempty"`
	Metadata     metadata `json:"metadata"`
	Device       *device  `json:"device,omitempty"`
	Actor        *actor   `json:"actor,omitempty"`

	ActionID      *int    `json:"action_id,omitempty"` // profile security_control, to IsAlert
	Action        string  `json:"action,omitempty"`
	DispositionID *int    `json:"disposition_id,omitempty"`
	Disposition   string  `json:"disposition,omitempty"`
	Policy        *policy `json:"policy,omitempty"`
	ConfidenceID  *int    `json:"confidence_id,omitempty"`
	Confidence    string  `json:"confidence,omitempty"`
	IsAlert       bool    `json:"is_alert,omitempty"`

	Process        *process        `json:"process,omitempty"` // process and memory activity
	LaunchTypeID   *int            `json:"launch_type_id,omitempty"`
	LaunchType     string          `json:"launch_type,omitempty"`
	ExitCode       *uint32         `json:"exit_code,omitempty"`
	BaseAddress    text            `json:"base_address,omitempty"`
	Size           uint64          `json:"size,omitempty"`
	File           *file           `json:"file,omitempty"` // file system activity
	FileResult     *file           `json:"file_result,omitempty"`
	CreateMask     text            `json:"create_mask,omitempty"`
	SrcEndpoint    *endpoint       `json:"src_endpoint,omitempty"` // network activity
	DstEndpoint    *endpoint       `json:"dst_endpoint,omitempty"`
	ConnectionInfo *connectionInfo `json:"connection_info,omitempty"`
	Kernel         *kernel         `json:"kernel,omitempty"` // kernel activity
	App            *product        `json:"app,omitempty"`    // application lifecycle
	LogName        text            `json:"log_name,omitempty"`
	LogProvider    string          `json:"log_provider,omitempty"` // event log activity
	FindingInfo    *findingInfo    `json:"finding_info,omitempty"` // detection finding
	Evidences      []evidences     `json:"evidences,omitempty"`

	Unmapped unmapped `json:"unmapped"`
}

type metadata struct {
	Version      string   `json:"version"`
	Product      product  `json:"product"`
	Profiles     []string `json:"profiles"`
	UID          text     `json:"uid"`
	Sequence     uint64   `json:"sequence"`
	EventCode    text     `json:"event_code"`
	LogName      text     `json:"log_name"`
	OriginalTime string   `json:"original_time"`
}

type product struct {
	Name       text   `json:"name"`
	VendorName string `json:"vendor_name,omitempty"`
}

type device struct {
	Hostname  text      `json:"hostname"`
	TypeID    int       `json:"type_id"`
	Type      string    `json:"type"`
	Container container `json:"container"`
}

type container struct {
	Name         text   `json:"name"`
	UID          text   `json:"uid,omitempty"`
	PodUUID      string `json:"pod_uuid,omitempty"`
	Orchestrator string `json:"orchestrator"`
	Labels       []text `json:"labels"`
	Image        *image `json:"image,omitempty"`
}

type image struct {
	Name text `json:"name"`
	UID  text `json:"uid"`
}

type actor struct {
	Process *process `json:"process,omitempty"`
	Session *session `json:"session,omitempty"`
}

type session struct {
	UID text `json:"uid"`
}

type process struct {
	PID     uint32   `json:"pid,omitempty"`
	UID     text     `json:"uid,omitempty"`
	PTID    uint32   `json:"ptid,omitempty"`
	Name    text     `json:"name,omitempty"`
	CmdLine text     `json:"cmd_line,omitempty"`
	File    *file    `json:"file,omitempty"`
	User    *user    `json:"user,omitempty"`
	Group   *user    `json:"group,omitempty"`
	Parent  *process `json:"parent_process,omitempty"`
}

type user struct { // or group
	UID string `json:"uid"`
}

type file struct {
	Name   text   `json:"name"`
	Path   text   `json:"path"`
	TypeID int    `json:"type_id"`
	Type   string `json:"type"`
}

type endpoint struct {
	IP   string `json:"ip,omitempty"`
	Port uint16 `json:"port,omitempty"`
	Name text   `json:"name,omitempty"`
}

type connectionInfo struct {
	DirectionID   int    `json:"direction_id"`
	Direction     string `json:"direction"`
	ProtocolVerID int    `json:"protocol_ver_id,omitempty"`
}

type kernel struct {
	Name       text   `json:"name"`
	TypeID     int    `json:"type_id"`
	Type       string `json:"type"`
	SystemCall text   `json:"system_call"`
}

type policy struct {
	Name text `json:"name"`
	UID  text `json:"uid,omitempty"`
}

type findingInfo struct {
	UID           text           `json:"uid"`
	Title         text           `json:"title"`
	Analytic      *analytic      `json:"analytic"`
	FirstSeenTime int64          `json:"first_seen_time"`
	LastSeenTime  int64          `json:"last_seen_time"`
	RelatedEvents []relatedEvent `json:"related_events"`
}

type analytic struct {
	TypeID   int    `json:"type_id"`
	Type     string `json:"type"`
	Name     text   `json:"name"`
	UID      text   `json:"uid"`
	Category text   `json:"category,omitempty"`
}

type relatedEvent struct {
	UID      text   `json:"uid"`
	TypeUID  int    `json:"type_uid"`
	TypeName string `json:"type_name"`
}

type evidences struct {
	Actor       *actor    `json:"actor,omitempty"`
	Process     *process  `json:"process,omitempty"`
	File        *file     `json:"file,omitempty"`
	SrcEndpoint *endpoint `json:"src_endpoint,omitempty"`
	DstEndpoint *endpoint `json:"dst_endpoint,omitempty"`
}

// unmapped has the record's own fields, under their names in a record.
type unmapped struct {
	Exec          text       `json:"exec,omitempty"`
	Profile       text       `json:"profile,omitempty"`
	ProfileDigest text       `json:"profileDigest,omitempty"`
	Class         text       `json:"class,omitempty"`
	Verdict       text       `json:"verdict,omitempty"`
	RuleID        text       `json:"ruleID,omitempty"`
	Origin        text       `json:"origin,omitempty"`
	Arch          text       `json:"arch,omitempty"`
	Nr            *int32     `json:"nr,omitempty"`
	Args          []argument `json:"args,omitempty"`
	Record        any        `json:"record,omitempty"` // the payload of another kind
	Chain         text       `json:"chain,omitempty"`
}

type argument struct {
	Name      text `json:"name"`
	Value     text `json:"value"`
	Evidence  text `json:"evidence"`
	Truncated bool `json:"truncated,omitempty"`
}

// uuid is what OCSF takes for a UUID.
var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func deviceOf(id *audit.Identity) *device {
	c := container{
		Name: text(id.Container), UID: text(id.ContainerID), Orchestrator: "Kubernetes",
		Labels: []text{text("io.kubernetes.pod.namespace=" + id.Namespace), text("io.kubernetes.pod.name=" + id.Pod)},
	}
	if uuid.MatchString(id.PodUID) {
		c.PodUUID = id.PodUID
	}
	return &device{Hostname: text(id.Node), TypeID: 1, Type: "Server", Container: c}
}

func processOf(c *audit.Syscall) *process {
	p := &process{
		PID: c.PID, PTID: c.TID, Name: text(c.Comm),
		User: &user{strconv.FormatUint(uint64(c.UID), 10)}, Group: &user{strconv.FormatUint(uint64(c.GID), 10)},
	}
	if c.Exe != "" {
		p.File = &file{text(path.Base(c.Exe)), text(c.Exe), 8, "Executable File"}
	}
	if c.PPID != 0 {
		p.Parent = &process{PID: c.PPID}
	}
	if c.PID == 0 {
		p.UID = "unknown"
	}
	return p
}

func fileOf(p string) *file { return &file{text(path.Base(p)), text(p), 0, "Unknown"} }
