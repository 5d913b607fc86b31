# Every command of the project; `make help` lists them. Each works from a fresh checkout.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Caches live outside the checkout, so a clean clone starts warm.
export XDG_CACHE_HOME ?= $(HOME)/.cache
export CARGO_TARGET_DIR ?= $(XDG_CACHE_HOME)/weft/target
export NODES ?= 2
export FUZZ_SECONDS ?= 60
SUITE ?= main

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The two that matter

.PHONY: demo
demo: deps ## A real cluster comes up, Weft is installed, traffic flows through the mesh and is shown
	@tests/demo.sh

.PHONY: test
test: deps lint unit generate-check chart-check deny e2e-all ## All tests

##@ Parts of `make test`

.PHONY: lint
lint: ## rustfmt and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

.PHONY: unit
unit: ## Unit, property and golden tests of all crates
	cargo test --workspace

.PHONY: chart-check
chart-check: tools ## helm lint, helm template against golden files, values schema
	@tests/chart/check.sh

.PHONY: deny
deny: ## Licences, duplicates, sources and (where the database can be reached) advisories of the dependencies
	@.ci/deny

.PHONY: generate-check
generate-check: ## Fail when a generated file differs from its source
	@.ci/generate --check

.PHONY: e2e
e2e: deps ## End-to-end tests of one suite on the cluster: SUITE=main, data-path, smi or lifecycle
	@tests/run-e2e.sh $(SUITE)

.PHONY: e2e-all
e2e-all: deps ## End-to-end tests of the suites main, data-path and smi, and the core of lifecycle, on two clusters
	@tests/run-all.sh

##@ Long campaigns, whose short forms are in `make test`

.PHONY: chaos
chaos: deps ## Faults one after the other under load (CHAOS_SECONDS=1200, SEED=1 decides the order)
	@tests/run-chaos.sh chaos

.PHONY: soak
soak: deps ## A long time without faults: memory, descriptors, latency (SOAK_SECONDS=7200)
	@tests/run-chaos.sh soak

.PHONY: model
model: deps ## The operator against a simulated cluster: SCHEDULES=100000 of them, from FIRST_SEED=0, on all cores
	SCHEDULES=$(or $(SCHEDULES),100000) FIRST_SEED=$(or $(FIRST_SEED),0) \
	  cargo test --locked --profile model -p weft-operator --test model many_schedules -- --ignored --nocapture

.PHONY: skew
skew: deps ## Operator and proxies of this version and of the one before in every pairing, on the cluster
	@tests/run-skew.sh

.PHONY: dns-versions
dns-versions: deps tools ## CoreDNS of several versions, from 1.3 on, takes up Weft's block and answers by it
	@tests/run-dns-versions.sh

##@ The cluster

.PHONY: cluster-up
cluster-up: deps tools ## Bring up the embedded Kubernetes cluster (idempotent; NODES=2)
	@tests/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Remove the cluster and everything it made
	@tests/cluster/down.sh

.PHONY: cluster-shell
cluster-shell: ## A shell with KUBECONFIG set and kubectl, helm on PATH
	@tests/cluster/shell.sh

.PHONY: cluster-smoke
cluster-smoke: cluster-up ## Check the cluster itself
	@tests/cluster/smoke.sh

.PHONY: images
images: cluster-up ## Build the images and load them into every node
	@tests/images/build.sh

##@ Measuring

.PHONY: bench
bench: deps ## Weft's proxy and its peers side by side: SCENARIO=http1-keepalive ROUNDS=3 SYSTEMS=weft,envoy narrow it
	@tests/peers/run.sh

.PHONY: bench-propagation
bench-propagation: deps ## Time from an EndpointSlice change to the last proxy using it (200 changes)
	@tests/run-bench.sh propagation

.PHONY: bench-scale
bench-scale: deps ## Operator and proxies with 1,000, 5,000 and 10,000 Services (SERVICES=5000 for one size), beside their targets
	@tests/run-bench.sh scale

.PHONY: fuzz
fuzz: ## Feed the parsers of untrusted text with generated text (FUZZ_SECONDS=60 for each)
	@.ci/fuzz

##@ Working on Weft

.PHONY: fmt
fmt: ## Format
	cargo fmt --all

.PHONY: generate
generate: ## Write all generated files (CRD YAML, docs/meshconfig.md, samples for the demo)
	@.ci/generate

.PHONY: deps
deps: ## Install what a bare Debian machine lacks
	@tests/cluster/install-deps.sh
	@.ci/checkout

.PHONY: tools
tools: ## Build kubectl, helm and the cluster's binaries from their pinned modules (cached)
	@tests/cluster/build.sh
