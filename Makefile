# For people: `make run` shows the whole thing, `make test` tests it. Both find or install the servers that they need.

.DEFAULT_GOAL := help
.PHONY: help run picture screenshots report bench flame build package test test-matrix test-n8n test-package test-alerts fuzz fmt lint

# rustup puts cargo here; a shell that is not a login shell may not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

help:
	@echo 'make run          the ledger on this machine, with private servers and sample records; Ctrl-C ends it'
	@echo 'make picture      puts ten lines of what `make run` shows into README.md'
	@echo 'make screenshots  puts pictures of the console with its records into docs/images/; finds or installs Chromium'
	@echo 'make report       measures the cost report over 100,000 uses of tools, on a private PostgreSQL'
	@echo 'make bench        measures the drain of a backlog against a plain insert and against other programs; installs those'
	@echo 'make flame        draws where the daemon spends its processor time; needs perf and inferno'
	@echo 'make test         all tests, on real servers that they start and stop themselves'
	@echo 'make test-matrix  the same on PostgreSQL 15 and 18, each with nats-server 2.10 and the newest'
	@echo 'make test-n8n     the workflows of README.md and docs/publish.md in a real n8n from npm, 3 GB'
	@echo 'make fuzz         the judging, for five minutes, and the readers of crates/tlog; needs a nightly toolchain and cargo-fuzz'
	@echo 'make test-package the Debian package on a clean machine of its own, with a real systemd; as root'
	@echo 'make test-alerts  the alert rules; needs promtool, which comes with Prometheus'
	@echo 'make build        target/release/ledgerd'
	@echo 'make package      target/debian/ledgerd_*.deb'
	@echo 'make fmt          format the sources'
	@echo 'make lint         clippy, warnings denied'

run:
	@exec python3 scripts/demo.py

picture:
	@exec python3 scripts/demo_picture.py

screenshots:
	@exec python3 scripts/screenshots.py

report:
	@exec python3 scripts/measure_reports.py

bench:
	@exec python3 benches/bench.py

flame:
	@exec python3 benches/flame.py

build:
	cargo build --release

package:
	@exec scripts/package

# Some tests alone: make test TEST='--test it kills'
# The programs are built together with a test: so they share their dependencies with the tests, which need a few features more.
test:
	@servers=$$(python3 scripts/servers.py env) && eval "$$servers" && cargo build --bins --test tidy && cargo test $(TEST)

test-matrix:
	@exec scripts/test-matrix

test-n8n:
	@exec python3 scripts/test_n8n.py

test-package:
	@exec python3 scripts/test_package.py

test-alerts:
	promtool check rules monitoring/ledgerd.rules.yml
	promtool test rules monitoring/ledgerd.rules.test.yml

fuzz:
	mkdir -p fuzz/corpus/judge
	cargo +nightly fuzz run judge -- -dict=fuzz/json.dict -max_total_time=300 -max_len=2048 fuzz/corpus/judge fuzz/seeds/judge
	for target in note receipt witness tile leaf; do \
		mkdir -p fuzz/corpus/$$target && \
		cargo +nightly fuzz run $$target -- -max_total_time=60 -max_len=2048 fuzz/corpus/$$target fuzz/seeds/$$target || exit 1; \
	done

fmt:
	cargo fmt

lint:
	cargo clippy --all-targets -- -D warnings
