# Everything that is run on this repository has a name here. Go alone is enough for check;
# .ci/run installs what the others need.

GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
SEEDS ?= 2000
TORTURE ?= 2m
FROM ?= 0
CRASHES ?= ^TestAcknowledgedOutlives
BENCH_FLAGS ?=
CHAOS_FLAGS ?=
LINT_MODFILE := tools/golangci-lint/go.mod

.PHONY: all build check race sim sim-bugs crashes compat torture chaos bench bench-clients lint fuzz cross clean

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
	CGO_ENABLED=1 $(GO) test -race -timeout 25m ./...

# Whole clusters, simulated and harmed by seed (internal/sim): as many as SEEDS says, in processes side by side. It prints what has
# happened in all of them. A seed that fails is lived again, to see whether it does.
sim:
	$(GO) test -count=1 -timeout 0 -v -run '^TestSimulatedClusters$$' ./internal/sim -args -sim.seeds=$(SEEDS) -sim.from=$(FROM)

# One broker under load whose lives end badly, a process per seed; CRASHES names the tests.
crashes:
	@world=$$(mktemp -d) && trap 'rm -rf "$$world"' EXIT && $(GO) test -c -o $$world/crashes.test ./internal/clustertest && \
	seq $(FROM) $$(($(FROM) + $(SEEDS) - 1)) | (cd internal/clustertest && WORLD=$$world xargs -P $$(nproc) -I{} sh -c ' \
		run() { BARNABAS_TEST_SEEDS={}-{} GOMAXPROCS=1 GOGC=off $$WORLD/crashes.test -test.run "$(CRASHES)" > $$WORLD/{}.$$1 2>&1; }; \
		run first && exit 0; cat $$WORLD/{}.first; \
		if run again; then echo "seed {} fails, and passes when run again"; else echo "seed {} fails, again too"; fi; exit 1') && \
	echo "$(SEEDS) seeds from $(FROM) on: no failure"

# Builds the simulation with each of the planted bugs (internal/planted), and looks for a seed that finds it, from 0 to 199:
# a build and some worlds for each, ten minutes in all. HINTS=1 begins with seeds that have found them before; BUG names some.
sim-bugs:
	BARNABAS_SIMBUGS_FROM_HINTS=$(HINTS) BARNABAS_SIMBUGS_ONLY='$(BUG)' $(GO) test -tags simbugs -count=1 -timeout 120m -v -run '^TestPlantedBugsAreFound$$' ./internal/sim

# Other people's clients and Apache Kafka's own tools against our broker, docs/compat.md is written anew; our client on every broker that it has to work with.
# Then the tests that other projects wrote, all of them: .ci/run does a tenth of those.
compat:
	BARNABAS_COMPAT_WRITE=1 BARNABAS_COMPAT_SITES=all $(GO) test -tags 'compat longer' -count=1 -timeout 60m ./test/compat/...
	$(GO) test -tags compat -count=1 -timeout 120m -v ./test/suites

# Our Go client on three nodes, of Apache Kafka and of ours, one of which is killed with -9 every ten seconds for TORTURE; counts are printed.
torture:
	BARNABAS_COMPAT_SITES='Apache Kafka 4.3.1 of three nodes;Barnabas of three nodes' \
		$(GO) test -tags compat -count=1 -timeout 60m -v -parallel 1 -run '^TestOurClient$$//^through_kills$$' ./test/compat -args -torture=$(TORTURE)

# Processes killed, disks filled, nodes of clusters cut off. BARNABAS_CHAOS_LONGER=2 for twice as long;
# CHAOS_FLAGS='-run FiveNodes -v -artifacts' for a part, and to keep the nodes' logs.
chaos:
	BARNABAS_SEED=random $(GO) test -tags chaos -count=1 -parallel 4 -timeout 30m $(CHAOS_FLAGS) ./test/chaos/...

# Apache Kafka and ours side by side; BENCH_FLAGS='-row sync -pairs 2' for a part.
bench: build
	cd bench && $(GO) build -o ../$(BIN)/bench . && cd .. && $(BIN)/bench -binary $(BIN)/barnabas $(BENCH_FLAGS)

# Our Go client and franz-go, on our broker.
bench-clients: build
	cd bench/clients && $(GO) build -o ../../$(BIN)/bench-clients . && cd ../.. && $(BIN)/bench-clients -binary $(BIN)/barnabas $(BENCH_FLAGS)

# The first run builds the linter, which takes minutes; afterwards the build cache has it.
lint:
	$(GO) tool -modfile=$(LINT_MODFILE) golangci-lint run ./...

# Every fuzz target for FUZZTIME each.
fuzz:
	@for target in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		package=$$(dirname $$target); \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$target); do \
			echo "fuzz $$package $$name"; \
			(cd $$package && $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
		done; \
	done

# What is not Linux must still compile.
cross:
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) vet ./...

clean:
	rm -rf $(BIN)
