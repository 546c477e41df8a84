// SPDX-License-Identifier: Apache-2.0

package archtest

const module = "metsuke.dev/metsuke"

// Paths below are subtrees: "guest" is the package guest and everything under it. Within this module they are
// relative to it. The most specific entry counts.

// layers says which of our subtrees each subtree may import, beside itself and internal. A subtree that is not
// here fails the test: say where it belongs.
//
// A package whose name ends in "test" (like net/http/httptest) is for tests: it may import any of ours, and only
// tests and other such packages may import it.
var layers = []struct {
	tree string
	may  []string
	why  string
}{
	{"seccomp", nil, "rules, BPF and the listener protocol know nothing of cgroups and events: they meet in shim and guest"},
	{"cgroups", nil, "limits know nothing of filters and events: they meet in shim and guest"},
	{"cgroups/inside", nil, "it is linked into the helper, which must stay small"},
	{"audit", nil, "the event form and its stream are read by others: they depend on no mechanism"},
	{"audit/shipper/config", []string{"audit", "cgroups"}, "a file that people write; it shares the form of quantities"},
	{"profile", []string{"seccomp", "cgroups"}, "a profile is resolved the same on every machine: it knows the forms it resolves to and nothing else"},
	{"config", []string{"cgroups"}, "the node's file is read before anything else is known; it shares the form of quantities"},
	{"guest/plan", nil, "both ends of the wire import it, and one of them must stay small"},
	{"guest/launcher", []string{"guest/plan"}, "it runs in front of every process of every container: each import costs start-up time and memory"},
	{"guest/supervisor", []string{"guest/plan", "seccomp", "audit"}, "it runs inside the Kata guest as well, where there is no containerd, no profile and no node"},
	{"guest/channel", nil, "both ends of the wire import it, and one of them must stay small"},
	{"guest/private", nil, "the host checks the directory with it, and the resident seals it"},
	{"guest/resident", []string{"guest", "seccomp", "audit", "cgroups/inside", "version"}, "the one place in the container that knows all features"},
	{"guest", []string{"guest/plan", "seccomp", "audit"}, "what runs in the container stays small"},
	{"shim", []string{"seccomp", "cgroups", "audit", "profile", "config", "guest", "version"}, "the only place that knows all features"},
	{"cluster/acceptance", []string{"profile"}, "what is in force depends on the documents alone: the same decision everywhere"},
	{"cluster/admission", []string{"profile"}, "what policies say follows from the documents and from what nodes refuse"},
	{"cluster/v1alpha1", nil, "objects have a form and no behaviour"},
	{"cluster/certificate", nil, "keys and certificates, whoever has them"},
	{"cluster/question", []string{"audit"}, "who asks, who decides and who answers share the form of a question, and nothing else"},
	{"cluster/door", []string{"cluster/certificate", "cluster/question", "cluster/v1alpha1"}, "it decides who may ask, and never reads an answer"},
	{"cluster/controller", []string{"cluster/acceptance", "cluster/admission", "cluster/v1alpha1", "profile"}, "it knows the cluster and no node"},
	{"cluster/metrics", []string{"cluster/controller"}, "it shows what rounds were"},
	{"node/agent", []string{"node", "cluster/acceptance", "cluster/v1alpha1", "config", "profile"}, "it joins the cluster and the node"},
	{"node/metrics", []string{"node/pods", "audit", "profile", "seccomp", "cgroups", "config", "shim/status"}, "it adds up what shims and streams say; what its agent does it is told"},
	{"node/traces", []string{"audit"}, "it turns records into spans, whoever reads them"},
	{"node/answer", []string{"node/pods", "node/doctor", "audit", "config", "cluster/certificate", "cluster/question"}, "it reads its node and knows nothing of who is behind a question"},
	{"node/answer/form", []string{"node/pods", "node/doctor/report", "cluster/question"}, "both ends of an answer share its form"},
	{"cluster/reader", []string{"cluster/question", "cluster/v1alpha1"}, "it asks as anybody may, and knows no node"},
	{"node/mirror", []string{"node/tree", "profile"}, "it writes documents and knows nothing of where they come from"},
	{"node/pods", []string{"audit", "profile", "config", "shim/bootstrap", "shim/status"}, "it asks shims and reads what they left; it is no part of one"},
	{"node/pods/show", []string{"node/pods", "audit", "cgroups"}, "it writes what others found out, and runs where people are"},
	{"node/doctor/report", []string{"audit"}, "it writes what the doctor found, and runs where people are"},
	{"node/cri", nil, "what containerd says of itself; what that means is for others to judge"},
	{"node/tree", nil, "files of a node, whatever is in them"},
	{"node/containerd", []string{"node/tree"}, "containerd's files and its service know nothing of what Metsuke wants of them"},
	{"node/install", []string{"node/tree", "node/containerd", "node/cri", "node/mirror", "config"}, "it puts together what the others found"},
	{"node/doctor", []string{"node/tree", "node/containerd", "node/cri", "seccomp", "cgroups", "audit", "profile", "config", "shim/delegate", "shim/bootstrap", "version"},
		"it judges a node by what all parts say of themselves"},
	{"cmd", []string{"seccomp", "cgroups", "audit", "profile", "config", "guest", "shim", "node", "cluster", "version"}, "wiring"},
	{"integration", []string{"node", "seccomp", "cgroups", "audit", "profile", "config", "guest", "shim", "version"}, "end to end"},
	{"version", nil, "a name"},
	{"internal", nil, "probes and helpers are below everything"},
}

// A ban keeps imports out of subtrees. Names that end in "/..." mean a subtree, others one package.
type ban struct {
	in         []string // subtrees; empty: the whole module
	notHelpers bool     // packages for tests are exempt
	except     []string
	imports    []string
	transitive bool // also through other packages
	why, do    string
}

var runtimeImports = []string{
	"github.com/containerd/...", "google.golang.org/...", "github.com/gogo/...", "k8s.io/...",
}

var bans = []ban{
	{
		except: []string{
			"shim", "cluster/v1alpha1", "cluster/controller", "cluster/door", "cluster/metrics", "cluster/reader", "audit/shipper", "audit/sink/otlp", "node/agent", "node/answer", "node/cri", "node/doctor", "node/install", "node/metrics", "node/pods", "node/traces", "cmd", "integration",
			"internal/exposition", // client_golang's own form is one of protobuf
		},
		imports:    runtimeImports,
		transitive: true,
		why:        "containerd, ttrpc and protobuf belong to the shim protocol and to CRI, and everything else must be usable without them",
		do:         "pass plain values in, and convert them under shim or node",
	},
	{
		in:         []string{"guest", "cmd/metsuke-guest"},
		imports:    append([]string{"encoding/json", "net/http", "text/template"}, runtimeImports...),
		transitive: true,
		why:        "Kata copies metsuke-guest into every guest (ceiling 3.5 MB), and it starts in front of every process",
		do:         "write the few bytes by hand, as guest/plan and audit do",
	},
	{
		in:         []string{"shim", "cmd/containerd-shim-metsuke-v2"},
		imports:    []string{"google.golang.org/grpc", "net/http", "k8s.io/...", "github.com/spf13/...", "go.opentelemetry.io/..."},
		transitive: true,
		why:        "the shim's memory for each pod is a promised number, and a gRPC or HTTP server is a good part of it; and it reaches no network",
		do:         "use the task/v2 types of containerd's api over ttrpc (the same wire form as v3)",
	},
	{
		in:         []string{"shim", "guest", "cmd/containerd-shim-metsuke-v2", "cmd/metsuke-guest"},
		notHelpers: true,
		imports:    []string{"github.com/klauspost/..."},
		transitive: true,
		why:        "who writes streams never compresses nor decompresses: each pod would pay for it in memory",
		do:         "read streams with audit/segment outside of the shim; audit/stream has what its writer needs",
	},
	{
		in:      []string{"profile"},
		imports: []string{"os", "os/...", "net", "net/...", "syscall"}, // x/sys/unix has the names of errors
		why:     "profiles are pure: the same files must resolve to the same profile in the shim, in lint and in a controller",
		do:      "read through the fs.FS, and take facts of the machine as arguments",
	},
	{
		imports: []string{"plugin", "net/rpc", "encoding/gob", "io/ioutil", "github.com/pkg/errors", "github.com/stretchr/..."},
		why:     "it has a better replacement in the standard library, or runs code that we did not build",
		do:      "use errors, fmt.Errorf with %w, io, os, testing and go-cmp",
	},
	{
		imports: []string{"C"},
		why:     "the binaries are static and must run in images without a libc",
		do:      "use golang.org/x/sys/unix or a *_unsafe.go file",
	},
	{
		imports:    []string{"testing", "testing/..."},
		notHelpers: true,
		why:        "it would be linked into what we ship (only files that are no tests are looked at)",
		do:         "move the code into a _test.go file, or into a package for tests, whose name ends in test",
	},
}

// packageNames are names that say nothing about what is inside.
var packageNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "lib", "shared"}

// maxLines is the length from which on a file has more than one subject.
const maxLines = 400
