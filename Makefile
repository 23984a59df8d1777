# For people: `make run` shows the whole thing, `make test` tests it. Both find or install the servers that they need.

.DEFAULT_GOAL := help
.PHONY: help run build test test-matrix fuzz fmt lint

# rustup puts cargo here; a shell that is not a login shell may not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

help:
	@echo 'make run          the ledger on this machine, with private servers and sample events; Ctrl-C ends it'
	@echo 'make test         all tests, on real servers that they start and stop themselves'
	@echo 'make test-matrix  the same on PostgreSQL 15 and 18, each with nats-server 2.10 and the newest'
	@echo 'make fuzz         the judging and the reading of proofs, for five minutes each; needs a nightly toolchain and cargo-fuzz'
	@echo 'make build        target/release/ledgerd'
	@echo 'make fmt          format the sources'
	@echo 'make lint         clippy, warnings denied'

run:
	@exec python3 scripts/demo.py

build:
	cargo build --release

# Some tests alone: make test TEST='--test it kills'
test:
	@servers=$$(python3 scripts/servers.py env) && eval "$$servers" && cargo test $(TEST)

test-matrix:
	@exec scripts/test-matrix

fuzz:
	mkdir -p fuzz/corpus/judge
	cargo +nightly fuzz run judge -- -dict=fuzz/json.dict -max_total_time=300 -max_len=2048 fuzz/corpus/judge fuzz/seeds/judge
	mkdir -p fuzz/corpus/leaf
	cargo +nightly fuzz run leaf -- -max_total_time=300 -max_len=4096 fuzz/corpus/leaf fuzz/seeds/leaf

fmt:
	cargo fmt

lint:
	cargo clippy --all-targets -- -D warnings
