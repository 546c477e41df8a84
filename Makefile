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

# What demo and bench run: containerd's version, and the number of rounds of bench.
CONTAINERD ?= 2.4
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

.PHONY: test
test: build test-unit test-integration ## run every test: unit, fuzz corpora, race detector, end to end (as root)

.PHONY: test-unit
test-unit: install-deps ## run the tests that need no containerd, with the race detector and the fuzz corpora
	go vet ./...
	go test -race ./...

.PHONY: test-integration
test-integration: build ## run the tests against libseccomp and runc, and end to end on containerd 2.4 and 1.7
	@runc=$$(integration/tools/build.sh runc | sed -n 's/^runc=//p')/runc; \
	for module in $(MODULES); do \
	  echo "go test: $$module"; \
	  (cd $$module && METSUKE_BIN=$(BIN) METSUKE_RUNC=$$runc go test -tags seccomp -count=1 -p 1 -timeout 40m ./...); \
	done

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
critest: build ## run the CRI conformance suite: delegate alone, passthrough, baseline; print the differences
	cd integration && METSUKE_BIN=$(BIN) go run ./cmd/critest -containerd $(CONTAINERD) -out $(OUT)/critest

.PHONY: demo
demo: build ## run an agent's pod under containerd and show what it was denied (KEEP=1: leave it up for crictl)
	@cd integration && METSUKE_BIN=$(BIN) go run ./cmd/demo -containerd $(CONTAINERD) -out $(OUT)/demo $(if $(KEEP),-keep)

.PHONY: bench
bench: build ## measure what Metsuke costs against the delegate alone, and print the table
	@cd integration && METSUKE_BIN=$(BIN) go run ./cmd/bench -containerd $(CONTAINERD)

.PHONY: clean
clean: ## remove what was built in the checkout
	rm -rf $(BIN) $(OUT)

.PHONY: clean-cache
clean-cache: clean ## remove the cache of built tools too
	rm -rf $${METSUKE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/metsuke}
