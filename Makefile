# SPDX-License-Identifier: Apache-2.0
#
# `make` lists the targets. Everything that is built besides bin/ lies in a cache outside the checkout (METSUKE_CACHE,
# default ~/.cache/metsuke), keyed by what was pinned, so that a second run is quick.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where a Go that is new enough is, or where install-deps will put it.
export PATH := $(shell integration/tools/go.sh):$(PATH)

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -s -w -X metsuke.dev/metsuke/version.version=$(VERSION)
BINARIES  := containerd-shim-metsuke-v2 metsuke-guest metsuke
BIN       := $(CURDIR)/bin
OUT       := $(CURDIR)/out
# Modules with tests of their own, beside the main one; the tool modules only pin.
MODULES   := $(patsubst %/go.mod,%,$(shell find integration -name go.mod -not -path '*/tools/*' | sort))
# Those whose tests need Kubernetes: `make kind` runs them.
CLUSTERED := integration/kind/e2e
# Programs that tests run; they have none of their own.
PROGRAMS  := integration/shipping/collector

# What demo, critest and bench run: containerd's version, the delegate (runc or kata), and where supervisors run (host or
# guest; empty: for demo what Metsuke does by itself, for the others each that the delegate can have). NODE, for critest, is where
# containerd runs: stand, or kind.
CONTAINERD ?= 2.4
DELEGATE   ?= runc
PLACEMENT  ?=
NODE       ?= stand
SETUP      := -containerd $(CONTAINERD) -delegate $(DELEGATE) -placement "$(PLACEMENT)"
FUZZTIME   ?= 30s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install-deps
install-deps: ## install the Debian packages that building and testing need, where they are missing; find Go
	@integration/tools/install-deps.sh

.PHONY: build
build: install-deps ## build the three static binaries into bin/
	@mkdir -p $(BIN)
	@for name in $(BINARIES); do \
	  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN)/$$name ./cmd/$$name; \
	done
	@ls -l $(BIN) | awk 'NR > 1 { printf "  %-28s %5.1f MB\n", $$9, $$5 / 1e6 }'

# What people have on their own machines; nothing of it runs on nodes.
PLUGIN_OS   ?= $(shell go env GOOS)
PLUGIN_ARCH ?= $(shell go env GOARCH)
.PHONY: plugin
plugin: install-deps ## build bin/kubectl-metsuke, the plugin of kubectl, for PLUGIN_OS (linux, darwin) and PLUGIN_ARCH
	@mkdir -p $(BIN)
	CGO_ENABLED=0 GOOS=$(PLUGIN_OS) GOARCH=$(PLUGIN_ARCH) go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN)/kubectl-metsuke ./cmd/kubectl-metsuke

# The image of the DaemonSet and the controller; it needs a Docker engine.
IMAGE ?= metsuke:$(VERSION)
.PHONY: image
image: build ## build the container image IMAGE with docker
	docker build -q -f deploy/Dockerfile -t $(IMAGE) $(BIN)

.PHONY: test
test: build test-unit test-integration test-kata ## run every test: unit, fuzz corpora, race detector, end to end (as root)

.PHONY: test-unit
test-unit: install-deps ## run the tests that need no containerd, with the race detector and the fuzz corpora
	go vet ./...
	GORACE=atexit_sleep_ms=0 go test -race ./...
	go test -count=1 -run '^TestEvery(Bit|Length)$$' ./audit/verify # all of them, which takes too long with the race detector; -count=1, or go looks at each file that was opened

.PHONY: test-integration
test-integration: build ## run the tests against libseccomp and runc, of shipping to Kafka, NATS and a collector, and end to end on containerd 2.4 and 1.7, in both placements
	@runc=$$(integration/tools/build.sh runc | sed -n 's/^runc=//p')/runc; \
	for module in $(filter-out $(CLUSTERED) $(PROGRAMS),$(MODULES)); do \
	  echo "go test: $$module"; \
	  (cd $$module && METSUKE_BIN=$(BIN) METSUKE_RUNC=$$runc go test -tags seccomp -count=1 -p 1 -timeout 40m ./...); \
	done; \
	echo "go test: supervisors in the container"; \
	cd integration && METSUKE_PLACEMENT=guest METSUKE_BIN=$(BIN) METSUKE_RUNC=$$runc go test -count=1 -p 1 -timeout 40m ./e2e ./parity
	@[ "$$(integration/tools/build.sh -cached etcd kubernetes | wc -l)" -eq 2 ] || \
	  echo "left out: agents on a real API server (integration/rollout): Kubernetes is not built here, make rollout builds it"

# What docs/kata-stand.md describes; the whole suite takes half an hour, so `make test` has a few pods of it. go test is run in the
# package's directory, because it then shows what a run that passes prints: which parts of Kata are real.
.PHONY: test-kata
test-kata: build ## run a few of the end-to-end tests on Kata
	cd integration/e2e && METSUKE_BIN=$(BIN) METSUKE_DELEGATE=kata go test -count=1 -timeout 20m \
	  -run '^(TestKata.*|TestBaseline.*|TestPassthroughPod)$$/containerd-2'

.PHONY: kata
kata: build ## run all that concerns Kata: the stand-in's own tests, the end-to-end tests, the CRI conformance suite, the node VM
	cd integration/kata && go test -count=1 -timeout 20m ./...
	cd integration/e2e && METSUKE_BIN=$(BIN) METSUKE_DELEGATE=kata go test -count=1 -timeout 120m
	$(MAKE) critest DELEGATE=kata
	$(MAKE) node-vm

# What docs/kind-stand.md describes. The first time it builds Kubernetes. go test is run in the package's directory, because it then
# shows what a run that passes prints: what the nodes are.
.PHONY: kind
kind: build install-deps-kind ## run the end-to-end tests on Kubernetes: a kind cluster, on a Docker of its own (RUN: an expression, for some of them)
	cd $(CLUSTERED) && METSUKE_BIN=$(BIN) go test -count=1 -timeout 120m $(if $(RUN),-run '$(RUN)')

.PHONY: install-deps-kind
install-deps-kind:
	@integration/tools/install-deps.sh kind

# The binaries are built out here: in there everything is emulated, some 16 times slower. The tag `node` adds tests that need such
# a machine. -skip: the one runs the compiler, the other makes 200,000 calls that a supervisor answers. The end-to-end tests are
# those that cgroup v2 and its controllers matter to, with supervisors in the shim, and then in the container.
.PHONY: node-vm
node-vm: build ## run the tests that cgroups matter to on cgroup v2 and Linux 6.1, in a virtual machine
	@mkdir -p $(OUT)/node-vm
	@cd integration && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(OUT)/node-vm/ ./cmd/nodevm ./cmd/workload
	@integration/tools/build.sh >/dev/null
	@vm="$(OUT)/node-vm/nodevm -kernel $$(integration/tools/build.sh kernel | sed -n 's/^kernel=//p')"; \
	go test -tags node -count=1 -p 1 -timeout 30m -skip "TestBothArchitecturesCompile|TestFloodIsFolded" -exec "$$vm" ./cgroups/... ./shim/... ./guest/...; \
	cd integration && export METSUKE_BIN=$(BIN) METSUKE_STAND_WORKLOAD=$(OUT)/node-vm/workload; \
	go test -tags node -count=1 -timeout 60m -exec "$$vm" -run 'Limit|OOM|TestPause|TestPodIsHeldAndRecorded|TestStandIsItsOwn|TestShimKilled$$' ./e2e; \
	METSUKE_PLACEMENT=guest go test -tags node -count=1 -timeout 60m -exec "$$vm" \
	  -run 'Limit|OOM|TestPause|TestPodIsHeldAndRecorded|TestResidentStarved|TestNoCgroupFileIsWritable' ./e2e

.PHONY: fuzz
fuzz: install-deps ## fuzz each Fuzz function for FUZZTIME (30s)
	@go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do \
	  grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go 2>/dev/null | sed 's/^func //' | while read -r name; do \
	    echo "$$package $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$package </dev/null; \
	  done; \
	done

.PHONY: lint
lint: install-deps ## run golangci-lint and the formatter's check over all modules
	@tool=$$(integration/tools/build.sh lint | sed -n 's/^lint=//p'); \
	for module in . $(MODULES); do \
	  echo "golangci-lint: $$module"; \
	  (cd $$module && $$tool/golangci-lint run --build-tags seccomp --config $(CURDIR)/.golangci.yml ./...); \
	done

.PHONY: critest
critest: build $(if $(filter kind,$(NODE)),install-deps-kind) ## run the CRI conformance suite: delegate alone, passthrough, baseline; print the differences (DELEGATE, PLACEMENT, NODE=kind)
	cd integration && METSUKE_BIN=$(BIN) go run ./cmd/critest $(SETUP) -node $(NODE) -out $(OUT)/critest-$(if $(filter kind,$(NODE)),kind,$(DELEGATE))

.PHONY: demo
demo: build ## run an agent's pod and show what it was denied (DELEGATE, PLACEMENT; KEEP=1: leave it up for crictl)
	@cd integration && METSUKE_BIN=$(BIN) go run ./cmd/demo $(SETUP) -out $(OUT)/demo $(if $(KEEP),-keep)

.PHONY: bench
bench: build ## measure what Metsuke costs against the delegate alone and what the audit stream bears, and print the table (DELEGATE, PLACEMENT)
	@cd integration && METSUKE_BIN=$(BIN) go run ./cmd/bench $(SETUP)

# What docs/scale.md describes. The first time it builds Kubernetes. NODES: how many nodes each run has, ROLLOUT: more flags.
NODES   ?= 250,500,1000,2000
ROLLOUT ?=
.PHONY: rollout
rollout: build ## measure how a changed profile reaches 15,000 simulated nodes, and what that costs the API server (NODES, ROLLOUT)
	@cd integration/rollout && METSUKE_BIN=$(BIN) go run ./cmd/rollout -nodes $(NODES) $(ROLLOUT)

.PHONY: clean
clean: ## remove what was built in the checkout
	rm -rf $(BIN) $(OUT)

.PHONY: clean-cache
clean-cache: clean ## remove the cache of built tools too
	rm -rf $${METSUKE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/metsuke}
