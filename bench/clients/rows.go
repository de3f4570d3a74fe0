package main

import (
	"fmt"
	"time"
)

// row is one thing that is measured.
type row struct {
	name, title string
	job         job
	single      bool // one partition, whatever -partitions says
	alone       bool // with a broker of its own in the client's process
	long        bool // only where it is asked for by -row
	bars        []bar
}

// bar is what our client must reach against franz-go.
type bar struct {
	metric      string
	shown, unit string
	atLeast     bool
	limit       float64
	aim         string
}

var (
	rate   = bar{"rate", "records/s", "", true, 1, "1.3x"}
	cpu    = bar{"cpu", "client CPU per record", "us", false, 1, "0.7x"}
	allocs = bar{"allocs", "allocations per record", "", false, 1, "0 with reused records"}
	p50    = bar{"p50", "ack p50", "ms", false, 1, "0.9x"}
	p99    = bar{"p99", "ack p99", "ms", false, 1, "0.9x"}

	messages = bar{"messages", "messages sent", "", false, 1, ""}
	seconds  = bar{"seconds", "time (fake)", "s", false, 1, ""}
)

// The length of a measurement at scale 1: some seconds of each client on two processors.
const (
	smallRecords = 4_000_000
	largeRecords = 1_000_000
	ackSeconds   = 20
	crowdMembers = 1000
)

func rows(o options) []row {
	many := func(n int) int { return max(int(float64(n)*o.scale), 10) }
	of := func(kind string, n, size int) job { return job{Kind: kind, Records: many(n), Size: size} }
	return []row{
		{name: "produce-124", title: "produce 124 B, acks=all, idempotent", job: of(producing, smallRecords, 124), bars: []bar{rate, cpu, allocs}},
		{name: "produce-1024", title: "produce 1 KiB, acks=all, idempotent", job: of(producing, largeRecords, 1024), bars: []bar{rate, cpu, allocs}},
		{name: "consume-124", title: "consume 124 B from the start", job: of(consuming, smallRecords, 124), bars: []bar{rate, cpu, allocs}},
		{name: "consume-1024", title: "consume 1 KiB from the start", job: of(consuming, largeRecords, 1024), bars: []bar{rate, cpu, allocs}},
		{
			name: "latency", title: "1,000 records/s, 124 B, 1 partition, acks=all, idempotent", single: true,
			job:  job{Kind: pacing, Records: many(ackSeconds * ackRate), Size: 124, Tick: time.Second / ackRate},
			bars: []bar{p50, p99, cpu},
		},
		{
			name: "crowd", title: fmt.Sprintf("%d members joining one group, one after another, then leaving", many(crowdMembers)),
			job: of(crowding, crowdMembers, 0), bars: []bar{messages, seconds}, alone: true, long: true,
		},
	}
}

// ackRate is how many records a second the latency row sends.
const ackRate = 1000
