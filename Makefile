# `make` lists the targets. What one of them needs from Debian, scripts/need installs, or names where it may not.

PREFIX  ?= /usr/local
TARGET  := $(or $(CARGO_TARGET_DIR),target)
RUNTIME := $(TARGET)/release/sc-runtime
# cargo names the platform in its output path (.cargo/config.toml says why); ours is the one users expect.
BUILT    = $(TARGET)/$(shell rustc -vV | sed -n 's/^host: //p')/release
BINS    := $(notdir $(basename $(wildcard src/bin/*.rs)))

.PHONY: help setup build demo demo-runtime test test-unit test-integration test-registry test-systemd test-install test-vm fuzz bench bench-image bench-memory bench-sc lint install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## install what building needs (root), or name what is missing
	@scripts/need cc:gcc /usr/include/stdlib.h:libc6-dev jq busybox:busybox-static
	@command -v cargo >/dev/null || { echo "missing here: cargo (Rust 1.88 or later; see https://rustup.rs)" >&2; exit 1; }

build: setup ## the programs, into target/release
	cargo build --release
	@mkdir -p $(TARGET)/release
	@for bin in $(BINS); do ln -f $(BUILT)/$$bin $(TARGET)/release/$$bin; done

demo: build ## an image, a container that prints, a web server with a published port: with sc (root)
	@scripts/demo

demo-runtime: build ## a bundle from create to delete with sc-runtime, each step explained (root)
	@scripts/demo-runtime

test: test-unit test-integration test-registry test-install test-systemd test-vm ## all tests: unit, native, and in a virtual machine
	@[ "$$(id -u)" = 0 ] || echo "make test: not run: the native integration tests (they need root, also those of ordinary users: sudo -E make test-integration), the unit tests of network devices and of systemd"

# The corpus of the fuzzer is replayed with the unit tests.
# Some unit tests need root (network namespaces), some root and systemd: elsewhere they are counted as ignored.
test-unit: setup
	cargo test --lib --bins --test fuzz
	@[ "$$(id -u)" != 0 ] || { scripts/need ip:iproute2 && \
	cargo test --lib -- --ignored netdev $$([ ! -d /run/systemd/system ] || echo systemd); }

# The programs are tested as they are released; what drives them is built faster.
DRIVE = SC_RUNTIME=$(abspath $(RUNTIME)) SC_IMAGE=$(abspath $(TARGET)/release/sc-image) SC=$(abspath $(TARGET)/release/sc) cargo test --profile quick

test-integration: build
	@if [ "$$(id -u)" = 0 ]; then $(DRIVE) --test integration && \
	scripts/need umoci skopeo buildah podman dockerd:docker.io zstd newuidmap:uidmap setfattr:attr \
	ip:iproute2 nft:nftables curl python3:python3-minimal pasta:passt slirp4netns fuse-overlayfs docker-registry && $(DRIVE) --test image; \
	else echo "make test: the native integration tests need root and are NOT run"; fi

test-registry: build ## sc-image with a real registry, over a wire that breaks, and with hostile servers
	-@scripts/need docker-registry skopeo openssl htpasswd:apache2-utils nginx:nginx-light
	$(DRIVE) --test registry

test-vm: build ## the integration tests on a pure cgroup v2 kernel with all controllers, and with AppArmor and SELinux (QEMU)
	scripts/test-vm
	scripts/test-lsm

bench-image: build ## images from an archive to files, beside umoci, podman, skopeo and ctr (root)
	@scripts/bench-image

test-install: build ## what make install makes: programs that are found, pages that are read, completions that complete
	@scripts/test-install

test-systemd: build ## the tests of systemd's cgroups where systemd is PID 1, in plain namespaces (root)
	@if [ "$$(id -u)" = 0 ]; then scripts/test-systemd; \
	else echo "make test: the tests of systemd's cgroups need root and are NOT run natively"; fi

bench-sc: build ## containers from an image beside podman, docker and ctr; 500 at once (root)
	@scripts/bench-sc

bench-memory: build ## the smallest memory limit a container starts under, beside crun and runc (root)
	@scripts/bench-memory

fuzz: setup ## feed every reader mutated input for TIME seconds in all (60), e.g. TIME=600 or TARGETS="config dbus"
	@scripts/need c++:g++
	@scripts/fuzz -t $(or $(TIME),60) $(TARGETS)

bench: build ## all of it beside others: sc-runtime (crun, runc, a C floor), seccomp (libseccomp), sc, sc-image (root)
	@scripts/bench
	@scripts/need python3:python3-minimal /usr/share/containers/seccomp.json:golang-github-containers-common
	cargo test --release --lib figures -- --ignored --nocapture
	@scripts/bench-sc
	@scripts/bench-image

lint: setup ## rustfmt, clippy with warnings denied, shellcheck
	@scripts/need shellcheck
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	rustfmt --check --edition 2024 fuzz/main.rs
	shellcheck -x -P SCRIPTDIR $$(grep -rlE '^#!.*\b(ba)?sh\b' scripts .ci)

# Where what is installed goes, below DESTDIR.
BIN     = $(PREFIX)/bin
MAN     = $(PREFIX)/share/man/man1
BASH    = $(PREFIX)/share/bash-completion/completions
ZSH     = $(PREFIX)/share/zsh/site-functions
FISH    = $(PREFIX)/share/fish/vendor_completions.d
SYSTEMD = $(PREFIX)/lib/systemd

install: ## programs, man pages, completions, units of systemd into PREFIX (/usr/local), below DESTDIR
	@[ -x $(RUNTIME) ] || { echo "nothing built yet: make build" >&2; exit 1; }
	install -d $(addprefix $(DESTDIR),$(BIN) $(MAN) $(BASH) $(ZSH) $(FISH) $(SYSTEMD)/system $(SYSTEMD)/user)
	install -m 755 $(addprefix $(TARGET)/release/,$(BINS)) $(DESTDIR)$(BIN)
	$(TARGET)/release/sc man $(DESTDIR)$(MAN)
	$(TARGET)/release/sc completion bash >$(DESTDIR)$(BASH)/sc
	$(TARGET)/release/sc completion zsh >$(DESTDIR)$(ZSH)/_sc
	$(TARGET)/release/sc completion fish >$(DESTDIR)$(FISH)/sc.fish
	@for kind in system user; do \
		sed 's|@BIN@|$(BIN)|' scripts/sc-restart.service >$(DESTDIR)$(SYSTEMD)/$$kind/sc-restart.service || exit 1; done

uninstall: ## remove what make install of this build put there
	rm -f $(addprefix $(DESTDIR)$(BIN)/,$(BINS)) $(DESTDIR)$(BASH)/sc $(DESTDIR)$(ZSH)/_sc $(DESTDIR)$(FISH)/sc.fish
	rm -f $(foreach kind,system user,$(DESTDIR)$(SYSTEMD)/$(kind)/sc-restart.service)
	@pages=$$(mktemp -d) && $(TARGET)/release/sc man $$pages && \
	for page in $$(ls $$pages); do rm -f "$(DESTDIR)$(MAN)/$$page"; done; rm -r $$pages

clean: ## remove what was built here
	cargo clean
	rm -rf bundles/busybox
