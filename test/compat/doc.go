//go:build compat

// Package compat lets other people's clients and tools at a broker of ours: franz-go, librdkafka's
// kcat, Apache Kafka's own Java tools, and what reads the files. The tests say what a user of
// those sees; Apache Kafka 4.3.1 passes them too (BARNABAS_TEST_SYSTEM=kafka), which is the proof
// that they ask for the right thing. Nothing in here looks inside a broker.
package compat
