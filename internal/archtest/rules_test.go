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
	{"audit", nil, "the event form and its stream are read by others: they depend on no mechanism"},
	{"profile", []string{"seccomp", "cgroups"}, "a profile is resolved the same on every machine: it knows the forms it resolves to and nothing else"},
	{"config", []string{"cgroups"}, "the node's file is read before anything else is known; it shares the form of quantities"},
	{"guest/plan", nil, "both ends of the wire import it, and one of them must stay small"},
	{"guest/launcher", []string{"guest/plan"}, "it runs in front of every process of every container: each import costs start-up time and memory"},
	{"guest/supervisor", []string{"guest/plan", "seccomp", "audit"}, "it runs inside the Kata guest as well, where there is no containerd, no profile and no node"},
	{"guest", []string{"guest/plan", "seccomp", "audit"}, "what runs in the container stays small"},
	{"shim", []string{"seccomp", "cgroups", "audit", "profile", "config", "guest", "version"}, "the only place that knows all features"},
	{"cmd", []string{"seccomp", "cgroups", "audit", "profile", "config", "guest", "shim", "version"}, "wiring"},
	{"integration", []string{"seccomp", "cgroups", "audit", "profile", "config", "guest", "shim", "version"}, "end to end"},
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
		except:     []string{"shim", "cmd", "integration"},
		imports:    runtimeImports,
		transitive: true,
		why:        "containerd, ttrpc and protobuf belong to the shim protocol, and everything else must be usable without it",
		do:         "pass plain values in, and convert them under shim",
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
		imports:    []string{"google.golang.org/grpc", "net/http", "k8s.io/...", "github.com/spf13/..."},
		transitive: true,
		why:        "the shim's memory for each pod is a promised number, and a gRPC or HTTP server is a good part of it",
		do:         "use the task/v2 types of containerd's api over ttrpc (the same wire form as v3)",
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
