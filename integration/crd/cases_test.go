// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"strings"
	"testing"

	"metsuke.dev/metsuke/profile"
)

func profileOf(spec string) string {
	return "apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: it}\nspec: " + spec + "\n"
}

func bindingOf(spec string) string {
	return strings.Replace(profileOf(spec), profile.KindProfile, profile.KindBinding, 1)
}

func deny(rule string) string { return profileOf("{seccomp: {deny: [" + rule + "]}}") }
func cond(args string) string { return deny("{syscalls: [clone], args: [" + args + "]}") }
func limits(l string) string  { return profileOf("{limits: {" + l + "}}") }
func named(name string) string {
	return strings.Replace(profileOf("{}"), "{name: it}", "{name: "+name+"}", 1)
}

// good are documents that both sides take.
var good = []string{
	profileOf("{}"), profileOf("{seccomp: {}, limits: {}, audit: {}}"), named("a.b-c"), named(strings.Repeat("a", 63)),
	profileOf("{noNewPrivileges: true}"), profileOf(`{noNewPrivileges: "true"}`), profileOf("{noNewPrivileges: inherit}"),
	profileOf("{extends: []}"), profileOf("{extends: [other], replace: true}"), profileOf("{replace: false}"),
	profileOf("{extends: [baseline], replace: true, noNewPrivileges: inherit, audit: {delivery: buffered, onLoss: continue}}"),
	profileOf("{extends: [other], noNewPrivileges: inherit, audit: {delivery: buffered, onLoss: continue}}"),
	profileOf("{extends: [baseline], noNewPrivileges: true, audit: {delivery: ordered, onLoss: kill}}"),
	profileOf("{seccomp: {default: deny, defaultErrno: 38, allow: [{syscalls: [execve]}]}}"),
	profileOf(`{seccomp: {architectures: [SCMP_ARCH_X86, x32, arm, "386"]}}`),
	deny("{syscalls: [bpf], errno: EPERM}"), deny("{syscalls: [bpf], errno: 133}"), deny(`{syscalls: [bpf], errno: "007"}`),
	deny("{syscalls: [bpf], errno: EWOULDBLOCK}"), deny("{syscalls: [bpf], errno: EFSCORRUPTED}"),
	deny("{id: deny-2, syscalls: [bpf]}"), deny("{id: deny-9, syscalls: [bpf]}, {syscalls: [acct]}"), deny("{id: deny-1, syscalls: [bpf]}, {syscalls: [acct]}"),
	deny("{id: a, syscalls: [bpf], reason: b}, {id: b, syscalls: [acct], args: []}"),
	cond("{index: 0, op: eq, value: -1}"), cond("{index: 5, op: ne, value: 0}"), cond(`{index: 0, op: eq, value: "18446744073709551615"}`),
	cond(`{index: 0, op: eq, value: "-9223372036854775808"}`), cond(`{index: 0, op: eq, value: "0x000000000000000000001F"}`), cond("{index: 0, op: eq, value: 0x7}"),
	cond(`{index: 0, op: eq, value: "-007"}`), cond(`{index: 0, op: eq, value: " CLONE_NEWNS |CLONE_VM"}`), cond("{index: 0, op: eq, value: CLONE_NEWNS}"),
	cond("{index: 0, op: eq, value: O_RDWR" + strings.Repeat("|O_RDWR", 15) + "}"), cond(`{index: 0, op: eq, value: "0x` + strings.Repeat("0", 109) + `1"}`),
	cond("{index: 0, op: masked_eq, value: 0, mask: 0xf}"), cond("{index: 0, op: masked_eq, value: 0x10, mask: 0x7fffffffffffffff}"), cond("{index: 0, op: masked_eq, value: -1, mask: -1}"),
	cond("{index: 0, op: masked_eq, value: S_IFCHR, mask: S_IFMT}"), cond("{index: 0, op: masked_eq, value: 8, mask: -1}"), cond("{index: 0, op: eq, value: 1, mask: 0}"),
	cond("{index: 0, op: masked_eq, value: CLONE_NEWNS, mask: CLONE_NEWNS|CLONE_NEWPID}"), cond("{index: 0, op: eq, value: 1, mask: AF_UNSPEC}"),
	cond("{index: 0, op: gt, value: 0}"), cond("{index: 0, op: lt, value: 1}"), cond("{index: 0, op: le, value: 0}"), cond("{index: 0, op: ge, value: -1}"),
	cond("{index: 0, op: gt, value: 1}, {index: 0, op: lt, value: 5}"), cond("{index: 0, op: ne, value: 1}, {index: 0, op: ne, value: 2}"),
	cond("{index: 0, op: eq, value: 1}, {index: 1, op: eq, value: 2}"),
	limits(`cpu: 2`), limits(`cpu: "2"`), limits(`cpu: 500m`), limits(`cpu: "0.5"`), limits(`cpu: "1000000"`), limits(`cpu: 1k`), limits(`cpu: 1M`),
	limits(`cpuWeight: 1`), limits(`cpuWeight: 10000`), limits(`cpuWeight: 10k`), limits(`cpuset: "0-3,7"`), limits(`cpuset: 3`), limits(`cpuset: "8191"`), limits(`cpuset: "3-3"`),
	limits(`cpuset: "000-0001"`), limits(`cpuset: "0-1,1-2\n"`),
	limits(`memory: 1`), limits(`memory: 1Gi`), limits(`memory: 1.5Gi`), limits(`memory: 1.250M`), limits(`memory: 1000m`), limits(`memory: 7Ei`), limits(`memory: "9223372036854775807"`),
	limits(`memory: 1Gi, memoryHigh: 1Gi`), limits(`memory: 1073741824, memoryHigh: 1Gi`), limits(`memory: 1Gi, memoryHigh: 1G`), limits(`swap: "0"`), limits(`swap: 0`), limits(`pids: 1k`),
	limits(`hugepages: {2MB: 64Mi, 1GB: 0}`), limits(`hugepages: {}`), limits(`io: {}`), limits(`io: {/dev/vda: {readBPS: 1}}`),
	limits(`io: {"8:16": {writeIOPS: 1}, "4095:1048575": {readIOPS: 5k}, "08:0016": {writeBPS: 1Mi}}`),
	limits(`pids: 1, io: {/dev/a: {readBPS: 1}}, bestEffort: [pids, io]`),
	profileOf("{audit: {classes: [exec, net], syscalls: [openat]}}"), profileOf("{audit: {classes: []}}"),
	profileOf("{audit: {durability: synced, delivery: ordered}}"), profileOf("{audit: {durability: batched, delivery: buffered, flushInterval: 100ms}}"), profileOf("{audit: {durability: synced, flushInterval: 1m}}"),
	profileOf("{audit: {stallTimeout: 100ms}}"), profileOf("{audit: {stallTimeout: 10m}}"), profileOf("{audit: {stallTimeout: 1m30.5s}}"), profileOf("{audit: {stallTimeout: +.5s}}"),
	profileOf(`{description: "` + strings.Repeat("ä", 4096) + `"}`), profileOf(`{extends: [` + numbers(32) + `]}`), deny(rules(256)), deny("{syscalls: [bpf], args: [" + strings.Repeat("{index: 1, op: ne, value: 3},", 16) + "]}"),
	bindingOf("{namespaces: [a]}"), bindingOf(`{namespaces: ["*", a-b, 7a], default: x, allowed: [z]}`), bindingOf("{namespaces: [a], default: baseline, allowed: [passthrough]}"),
	bindingOf(`{namespaces: [a], containers: [{names: ["*-x"], profile: x}, {images: ["**/x:*", "*"], names: [], profile: z}]}`),
	bindingOf("{namespaces: [" + numbers(1024) + "], allowed: [" + numbers(256) + "]}"), bindingOf("{namespaces: [a], containers: [{images: [" + numbers(64) + "], profile: x}]}"),
	bindingOf("{namespaces: [a], containers: [{images: [" + strings.Repeat("x", 256) + "], profile: x}]}"),
}

// bad are documents with one fault, which both sides refuse.
var bad = []string{
	named("pod"), named("baseline"), named("passthrough"), named("A"), named("-a"), named("a-"), named(strings.Repeat("a", 64)), named("it}, labels: {a: 1"),
	strings.Replace(bindingOf("{namespaces: [a]}"), "{name: it}", "{name: pod}", 1), strings.Replace(profileOf("{}"), "{name: it}", "{}", 1),
	strings.Replace(profileOf("{}"), "v1alpha1", "v1", 1), strings.Replace(profileOf("{}"), "AgentProfile", "AgentProfiles", 1), strings.Replace(profileOf("{}"), "spec: {}", "", 1),
	profileOf("{extend: [a]}"), profileOf("{passthrough: true}"), profileOf("[]"), profileOf("x"), profileOf("~"), profileOf("{}\nfoo: 1"),
	profileOf("{description: 7}"), profileOf("{description: ''}"), profileOf("{description: []}"),
	profileOf("{extends: baseline}"), profileOf("{extends: [passthrough]}"), profileOf("{extends: [it]}"), profileOf("{extends: [a, a]}"), profileOf("{extends: [A]}"), profileOf("{extends: ['']}"), profileOf("{extends: [~]}"),
	profileOf("{replace: true}"), profileOf("{replace: true, extends: []}"), profileOf("{replace: 'true', extends: [a]}"),
	profileOf("{noNewPrivileges: false}"), profileOf("{noNewPrivileges: [true]}"), profileOf("{noNewPrivileges: {a: b}}"), profileOf("{noNewPrivileges: 1}"), profileOf("{noNewPrivileges: Inherit}"), profileOf("{noNewPrivileges: ''}"),
	profileOf("{extends: [baseline], noNewPrivileges: inherit}"), profileOf("{extends: [a, baseline], replace: false, noNewPrivileges: inherit}"),
	profileOf("{extends: [baseline], audit: {delivery: buffered}}"), profileOf("{extends: [baseline], audit: {onLoss: continue}}"),
	profileOf("{seccomp: {default: kill}}"), profileOf("{seccomp: {defaultErrno: EPERM}}"), profileOf("{seccomp: {default: allow, defaultErrno: EPERM}}"), profileOf("{seccomp: {default: deny, defaultErrno: 0}}"),
	profileOf("{seccomp: {architectures: [x86]}}"), profileOf("{seccomp: {architectures: [x32, x32]}}"), profileOf("{seccomp: {architectures: [386]}}"),
	profileOf("{seccomp: {allow: [{syscalls: [bpf], errno: EPERM}]}}"), profileOf("{seccomp: {kill: [{syscalls: [bpf], errno: EPERM}]}}"),
	deny("{}"), deny("{syscalls: []}"), deny("{syscalls: [ptrase]}"), deny("{syscalls: [bpf, bpf]}"), deny("{syscalls: bpf}"), deny("{syscalls: [7]}"), deny("bpf"), deny("{syscalls: [bpf], arg: []}"),
	deny("{syscalls: [bpf], errno: EPREM}"), deny("{syscalls: [bpf], errno: 134}"), deny("{syscalls: [bpf], errno: -1}"), deny("{syscalls: [bpf], errno: '134'}"), deny("{syscalls: [bpf], errno: true}"), deny("{syscalls: [bpf], errno: ''}"),
	deny("{id: A, syscalls: [bpf]}"), deny("{id: default, syscalls: [bpf]}"), deny("{id: a, syscalls: [bpf]}, {id: a, syscalls: [acct]}"), deny("{id: deny-2, syscalls: [bpf]}, {syscalls: [acct]}"),
	deny("{syscalls: [acct]}, {id: deny-1, syscalls: [bpf]}"), deny("{syscalls: [bpf], reason: ''}"), deny("{syscalls: [bpf], reason: " + strings.Repeat("x", 1025) + "}"),
	cond("{index: 6, op: eq, value: 0}"), cond("{index: -1, op: eq, value: 0}"), cond("{index: '0', op: eq, value: 0}"), cond("{op: eq, value: 0}"), cond("{index: 0, value: 0}"), cond("{index: 0, op: eq}"),
	cond("{index: 0, op: equals, value: 0}"), cond("{index: 0, op: eq, value: AF_INETT}"), cond("{index: 0, op: eq, value: true}"), cond("{index: 0, op: eq, value: [1]}"), cond("{index: 0, op: eq, value: ''}"), cond("{index: 0, op: eq, value: '010'}"),
	cond("{index: 0, op: eq, value: '18446744073709551616'}"), cond("{index: 0, op: eq, value: '-9223372036854775809'}"), cond("{index: 0, op: eq, value: '0x1ffffffffffffffff'}"), cond("{index: 0, op: eq, value: '+1'}"), cond("{index: 0, op: eq, value: 'AF_INET|'}"), cond("{index: 0, op: eq, value: 'AF_INET|1'}"), cond("{index: 0, op: eq, value: 1.5}"),
	cond("{index: 0, op: eq, value: '0x'}"), cond("{index: 0, op: eq, value: '0X1'}"), cond("{index: 0, op: eq, value: '" + strings.Repeat("0", 113) + "'}"),
	cond("{index: 0, op: masked_eq, value: 0}"), cond("{index: 0, op: masked_eq, value: 0, mask: 0}"), cond("{index: 0, op: masked_eq, value: 0x1f, mask: 0xf0}"), cond("{index: 0, op: masked_eq, value: S_IFMT, mask: S_IFCHR}"), cond("{index: 0, op: masked_eq, value: '31', mask: 240}"),
	cond("{index: 0, op: eq, value: 0, mask: 1}"), cond("{index: 0, op: lt, value: 0}"), cond("{index: 0, op: lt, value: AF_UNSPEC}"), cond("{index: 0, op: ge, value: 0}"), cond("{index: 0, op: ge, value: '0'}"), cond("{index: 0, op: le, value: -1}"), cond("{index: 0, op: gt, value: '0xffffffffffffffff'}"),
	cond("{index: 0, op: eq, value: 1}, {index: 0, op: eq, value: 2}"), cond("{index: 0, op: gt, value: 9}, {index: 0, op: lt, value: 5}"), cond("{index: 0, op: ne, value: 1}, {index: 0, op: eq, value: 1}"),
	cond("{index: 3, op: le, value: AF_INET}, {index: 3, op: ge, value: AF_INET6}"), cond("{index: 3, op: lt, value: 5}, {index: 3, op: gt, value: 4}"),
	limits(`cpu: 0`), limits(`cpu: "-1"`), limits(`cpu: -1`), limits(`cpu: 1u`), limits(`cpu: "1000001"`), limits(`cpu: 1000001`), limits(`cpu: 1G`), limits(`cpu: true`), limits(`cpu: ""`), limits(`cpu: [1]`),
	limits(`cpuWeight: 0`), limits(`cpuWeight: 10001`), limits(`cpuWeight: 11k`), limits(`cpuWeight: "1.5"`), limits(`cpuset: "3-1"`), limits(`cpuset: "8192"`), limits(`cpuset: 8192`), limits(`cpuset: "1,"`), limits(`cpuset: ""`), limits(`cpuset: none`), limits(`cpuset: "0-31:2/4"`), limits(`cpuset: -1`),
	limits(`cpuset: "` + strings.Repeat("1,", 256) + `1"`),
	limits(`memory: 0`), limits(`memory: "0"`), limits(`memory: 1GB`), limits(`memory: 800m`), limits(`memory: "1e9"`), limits(`memory: 8Ei`), limits(`memory: 10E`), limits(`memory: "9223372036854775808"`), limits(`memory: 0x10z`), limits(`memory: "1.1"`), limits(`memory: " 1"`),
	limits(`memory: "` + strings.Repeat("0", 40) + `1"`), limits(`memory: 1Gi, memoryHigh: 2Gi`), limits(`memory: 1073741823, memoryHigh: 1Gi`), limits(`memoryHigh: 0`), limits(`swap: -1`), limits(`pids: 0`), limits(`pids: "0.0"`), limits(`memroy: 1Gi`),
	limits(`hugepages: {2M: 64Mi}`), limits(`hugepages: {02MB: 64Mi}`), limits(`hugepages: {2MB: x}`), limits(`hugepages: {2MB: 8Ei}`), limits(`io: {sdb: {readIOPS: 5}}`), limits(`io: {"4096:0": {readIOPS: 5}}`), limits(`io: {"0:1048576": {readIOPS: 5}}`), limits(`io: {"8:": {readIOPS: 5}}`),
	limits(`io: {/dev/a: {}}`), limits(`io: {/dev/a: {readIOPS: 0}}`), limits(`io: {/dev/a: {readIOPS: "0"}}`), limits(`io: {/dev/a: {readBps: 1}}`), limits(`io: {/dev/a: {readBPS: 8Ei}}`), limits(`io: []`), limits(`io: {` + devices(65) + `}`), limits(`bestEffort: [swap]`), limits(`pids: 1, bestEffort: [pids, swop]`), limits(`pids: 1, bestEffort: [pids, pids]`), limits(`io: {}, bestEffort: [io]`),
	profileOf("{audit: {classes: [exec, exec]}}"), profileOf("{audit: {classes: [execs]}}"), profileOf("{audit: {syscalls: [openatt]}}"), profileOf("{audit: {delivery: Ordered}}"), profileOf("{audit: {onLoss: true}}"), profileOf("{audit: {onLoss: ''}}"),
	profileOf("{audit: {durability: sync}}"), profileOf("{audit: {durability: true}}"), profileOf("{audit: {durability: synced, delivery: buffered}}"), profileOf("{audit: {flushInterval: 99ms}}"), profileOf("{audit: {flushInterval: 61s}}"), profileOf("{audit: {flushInterval: 1}}"),
	profileOf("{audit: {stallTimeout: 99ms}}"), profileOf("{audit: {stallTimeout: 601s}}"), profileOf("{audit: {stallTimeout: 5}}"), profileOf("{audit: {stallTimeout: 5 s}}"), profileOf("{audit: {stallTimeout: 1d}}"), profileOf("{audit: {stallTimeout: 9999999999h}}"), profileOf("{audit: {stallTimeout: ''}}"), profileOf("{audit: {stallTimeout: -5s}}"),
	profileOf(`{description: "` + strings.Repeat("ä", 4097) + `"}`), profileOf(`{extends: [` + numbers(33) + `]}`), deny(rules(257)), deny("{syscalls: [bpf], args: [" + strings.Repeat("{index: 1, op: ne, value: 3},", 17) + "]}"),
	bindingOf("{}"), bindingOf("{namespaces: []}"), bindingOf("{namespaces: [A]}"), bindingOf("{namespaces: ['a-*']}"), bindingOf("{namespaces: ['**']}"), bindingOf("{namespaces: [a.b]}"), bindingOf("{namespaces: [a, a]}"), bindingOf("{namespaces: a}"),
	bindingOf("{namespaces: [a], default: X}"), bindingOf("{namespaces: [a], default: ''}"), bindingOf("{namespaces: [a], allowed: [x, x]}"), bindingOf("{namespaces: [a], allow: [x]}"),
	bindingOf("{namespaces: [a], containers: [{profile: x}]}"), bindingOf("{namespaces: [a], containers: [{names: [], images: [], profile: x}]}"), bindingOf("{namespaces: [a], containers: [{names: [x]}]}"), bindingOf("{namespaces: [a], containers: [{names: ['a b'], profile: x}]}"),
	bindingOf("{namespaces: [a], containers: [{names: ['***'], profile: x}]}"), bindingOf("{namespaces: [a], containers: [{names: [''], profile: x}]}"), bindingOf("{namespaces: [a], containers: [{names: [x], profile: X}]}"), bindingOf("{namespaces: [a], containers: [{names: [x, x], profile: x}]}"),
	bindingOf("{namespaces: [" + numbers(1025) + "]}"), bindingOf("{namespaces: [a], allowed: [" + numbers(257) + "]}"), bindingOf("{namespaces: [a], containers: [{images: [" + numbers(65) + "], profile: x}]}"),
	bindingOf("{namespaces: [a], containers: [{images: [" + strings.Repeat("x", 257) + "], profile: x}]}"),
}

// late are documents that the API server takes and the controller refuses a moment later.
var late = []string{
	profileOf("{seccomp: {kill: [{syscalls: [bpf]}], deny: [{syscalls: [bpf]}]}}"),
	deny("{syscalls: [bpf, acct]}, {syscalls: [acct]}"), profileOf("{extends: [pod]}"),
	cond("{index: 0, op: masked_eq, value: 1, mask: 1}, {index: 0, op: eq, value: 2}"),
	cond("{index: 0, op: eq, value: -1}, {index: 0, op: eq, value: -2}"),
	cond("{index: 0, op: masked_eq, value: -1, mask: 1}"), cond("{index: 0, op: masked_eq, value: '0x1f', mask: '0xf0'}"),
	cond("{index: 0, op: masked_eq, value: 0, mask: '0x00'}"), cond("{index: 0, op: ge, value: '0x00'}"),
	deny(strings.Repeat("{syscalls: [ioctl], reason: "+strings.Repeat("x", 1024)+", args: [{index: 1, op: eq, value: 1}]},", 240)),
	cond("{index: 0, op: lt, value: 'AF_UNSPEC|AF_UNSPEC'}"), cond("{index: 0, op: gt, value: '0xFFFFFFFFFFFFFFFF'}"),
}

// early are documents that a node takes from a file and the API server refuses.
var early = []string{
	limits("cpu: 0.5"), cond("{index: 0, op: eq, value: 0xffffffffffffffff}"), limits("memory: 1.0625Gi"), limits(`memory: "9223372036854775.807k"`),
	named("a..b"), named("it, labels: {a: b c}"), named("it, annotations: {a b: c}"),
	bindingOf("{namespaces: [a], default: y}"), bindingOf("{namespaces: [a], allowed: [on]}"), bindingOf("{namespaces: [no]}"), profileOf("{description: yes}"),
}

// read are documents that both sides take in the form in which the API server gets them, and a node does not take as a file.
var read = []string{
	limits("cpu: &a 1, pids: *a"), limits("<<: {cpu: 1}, memory: 1Gi"), profileOf("{description: !!str 7}"), limits(`hugepages: {2MB: 64Mi, 2MB: 64Mi}`),
	profileOf("{audit: {classes: ~}}"), profileOf("{audit: ~, limits:}"), profileOf("{}\nstatus: {digest: a}"), named("it, namespace: x"), named("it, finalizers: [a/b]"), named("it, generateName: x"),
	deny("{syscalls: [bpf], errno: 0x26}"), deny("{syscalls: [bpf], errno: 38.0}"), cond("{index: 0x1, op: eq, value: 0}"), cond("{index: 1.0, op: eq, value: 0}"), cond("{index: 0, op: eq, value: 010}"), cond("{index: 0, op: eq, value: 1_000}"), cond("{index: 0, op: eq, value: 1e3}"),
	limits("pids: 0x10"), limits("pids: 1_000"), limits("memory: 1e9"), limits("cpuset: 0x3"), profileOf("{noNewPrivileges: yes}"), profileOf("{noNewPrivileges: True}"), profileOf("{extends: [a], replace: yes}"),
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "n%d,", i)
	}
	return b.String()
}

func devices(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "/dev/x%d: {readBPS: 1},", i)
	}
	return b.String()
}

func rules(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{id: r%d, syscalls: [ioctl], args: [{index: 1, op: eq, value: %d}]},", i, i)
	}
	return b.String()
}

func TestCases(t *testing.T) {
	s := servers(t)
	for _, text := range good {
		v := judge(t, s, []byte(text))
		if v.file != nil || v.server != nil || v.cluster != nil {
			t.Errorf("refused: file %v\nserver %v\ncluster %v\n%.400s", v.file, v.server, v.cluster, text)
		}
	}
	for _, text := range bad {
		if v := judge(t, s, []byte(text)); v.file == nil || v.server == nil {
			t.Errorf("taken: file %v\nserver %v\ncluster %v\n%.400s", v.file, v.server, v.cluster, text)
		}
	}
}
