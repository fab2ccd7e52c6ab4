# Needs git, make, and Node 18 or newer with npm. `make test` installs what else it uses (see CONTRIBUTING.md).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# A path may be given: make test TESTS=test/nbd/session.test.ts
TESTS ?=
PACKAGES := node_modules/.package-lock.json

.PHONY: help demo test acceptance bench check build setup clean

help:
	@echo 'make demo        the whole path in one minute: protect, write, look back, restore'
	@echo 'make test        installs what the tests use, runs them (TESTS=path for some)'
	@echo 'make acceptance  real guests, brokers and power cuts; takes long'
	@echo 'make check       types, formatting, lint, dead code'
	@echo 'make bench       measures throughput and latency'
	@echo 'make build       JavaScript into dist/'

$(PACKAGES): package-lock.json tools/node24/package.json
	@test/setup/node-modules.sh
	@touch $@

demo: $(PACKAGES)
	@npm run --silent demo

setup: $(PACKAGES)
	@test/setup/packages.sh
	@test/setup/kafka.sh >/dev/null
	@test/setup/guest.sh >/dev/null

test: setup
	@npm run --silent test:summary -- $(TESTS)

acceptance: setup
	@npm run --silent test:summary -- --config ava.acceptance.config.js $(TESTS)

check: $(PACKAGES)
	@npm run --silent check

bench: $(PACKAGES)
	@npm run --silent bench

build: $(PACKAGES)
	@npm run --silent build

clean:
	rm -rf dist coverage
