# What each word does is said by `make help`. The work is done by cargo and by scripts/.

SHELL := /bin/bash
PREFIX ?= /usr/local

.PHONY: help demo test chaos escape fuzz schemathesis scan dudect check bench bench-quick run build build-agent fmt install uninstall clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: ## builds, starts an agent, runs signed jobs, shows output, a refusal, the record and the metrics, stops
	@scripts/demo.sh

test: ## everything: unit, integration, real Docker, the Python and shell controllers, install
	@scripts/test.sh

chaos: ## faults befall an agent at work; SEED=, DURATION= (seconds, 300), PLANTED= (a defect to be found)
	@scripts/chaos.sh

escape: ## every attempt of a hostile job, on real Docker, and a table of how each ended; JOBS= (of the last row, 200)
	@scripts/escape.sh

fuzz: ## libFuzzer over each target; DURATION= (seconds each, 60); needs cargo-fuzz
	@scripts/fuzz.sh

schemathesis: ## asks an agent everything that its OpenAPI document allows; SEED=, EXAMPLES= (of each operation, 200)
	@scripts/schemathesis.sh

scan: ## testssl.sh and slowhttptest against an agent; DURATION=, CONNECTIONS=
	@scripts/scan.sh

dudect: ## whether a wrong MAC's time tells where it is wrong; a million samples, release build
	@scripts/dudect.sh

check: ## format, clippy without warnings, docs, shellcheck, cargo-deny; SKIP_DENY=1 without the last
	@scripts/check.sh

bench: ## measures beside Docker itself, release build; table and target/bench/summary.json (10 min)
	@scripts/bench.sh

bench-quick: ## the same on a smaller scale, in two minutes
	@scripts/bench.sh --quick

run: ## leaves a development agent running in the foreground and prints what to type next
	@scripts/run.sh

build: build-agent ## same as build-agent

build-agent: ## release builds of both programs, into bin/
	cargo build --release --locked --bins
	@mkdir -p bin
	@install -m 0755 "$$(scripts/target-dir.sh)/release/quickcmd-agent" "$$(scripts/target-dir.sh)/release/quickcmd" bin/
	@echo "bin/quickcmd-agent and bin/quickcmd are built."

fmt: ## formats the sources
	cargo fmt --all

install: ## as root: the seed's six steps (scripts/setup-agent.sh)
	scripts/setup-agent.sh

uninstall: ## as root: removes the service and the programs; keeps configuration and record unless PURGE=1
	scripts/remove-agent.sh

clean: ## removes what was built
	cargo clean
	rm -rf bin
