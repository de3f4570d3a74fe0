# Everything that is run on this repository has a name here. Go alone is enough for check;
# .ci/run installs what the others need.

GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
SEEDS ?= 200
BENCH_FLAGS ?=
LINT_MODFILE := tools/golangci-lint/go.mod

.PHONY: all build check race sim compat chaos bench lint fuzz cross clean

all: check

# The binary that ships: static, no C.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/barnabas ./cmd/barnabas

check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags 'compat chaos' ./test/...
	$(GO) test ./...

race:
	CGO_ENABLED=1 $(GO) test -race -timeout 10m ./...

# Simulated worlds (tests named TestSim...), a process per seed, given as BARNABAS_SEED: on one
# processor and without a collector a seed replays. A seed that fails is run again at once.
sim:
	@set -e; world=$$(mktemp -d); trap 'rm -rf "$$world"' EXIT; failed=; \
	packages=$$(grep -rl --include='*_test.go' '^func TestSim' . | xargs -r -n 1 dirname | sort -u); \
	test -n "$$packages" || { echo "no test is named TestSim"; exit 1; }; \
	for package in $$packages; do \
		$(GO) test -c -o $$world/sim.test $$package; \
		for seed in $$(seq 1 $(SEEDS)); do \
			run="env BARNABAS_SEED=$$seed GOMAXPROCS=1 GOGC=off $$world/sim.test -test.run ^TestSim"; \
			(cd $$package && $$run) > $$world/out 2>&1 && continue; \
			echo "$$package: seed $$seed failed:"; cat $$world/out; failed="$$failed $$package:$$seed"; \
			if (cd $$package && $$run) > $$world/again 2>&1; then echo "$$package: seed $$seed passes when run again"; fi; \
		done; \
		echo "$$package: $(SEEDS) seeds"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# Other people's clients and Apache Kafka's own tools against our broker.
compat:
	$(GO) test -tags compat -count=1 -timeout 25m ./test/compat/...

# Processes killed, disks filled.
chaos:
	$(GO) test -tags chaos -count=1 -timeout 15m ./test/chaos/...

# Apache Kafka and ours side by side; BENCH_FLAGS='-row sync -pairs 2' for a part.
bench: build
	cd bench && $(GO) build -o ../$(BIN)/bench . && cd .. && $(BIN)/bench -binary $(BIN)/barnabas $(BENCH_FLAGS)

# The first run builds the linter, which takes minutes; afterwards the build cache has it.
lint:
	$(GO) tool -modfile=$(LINT_MODFILE) golangci-lint run ./...

# Every fuzz target for FUZZTIME each.
fuzz:
	@for target in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		package=$$(dirname $$target); \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$target); do \
			echo "fuzz $$package $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

# What is not Linux must still compile.
cross:
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) vet ./...

clean:
	rm -rf $(BIN)
