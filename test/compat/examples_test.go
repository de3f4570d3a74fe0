//go:build compat

package compat

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"barnabas/client"
	"barnabas/test/compat/rig"
)

// The programs in examples/ that need what barnabastest does not have, or do not end by themselves,
// are run here; the others by the test beside them. group is run by TestOurGroupConsumerIsKilled.

// A copier that is killed with -9, again and again in the middle of its work, copies every record once,
// and those of a key in their order.
func TestExampleExactlyOnce(t *testing.T) {
	broker := rig.StartKafka(t, "group.initial.rebalance.delay.ms=0")
	program := filepath.Join(t.TempDir(), "exactlyonce")
	build := exec.Command("go", "build", "-o", program, "./examples/exactlyonce")
	build.Dir = rig.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const partitions, records = 3, 30_000
	createTopic(t, broker.Addr, "orders", partitions)
	createTopic(t, broker.Addr, "copies", partitions)
	ctx := within(t, patience)
	p, err := ourClient(t, broker.Addr).NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	want := map[int32][]string{}
	for i := range records {
		key, value := fmt.Appendf(nil, "key %d", i%100), fmt.Append(nil, i)
		at := client.KeyPartition(key, partitions)
		want[at] = append(want[at], string(value))
		if err := p.Send(ctx, client.ProducerRecord{Topic: "orders", Key: key, Value: value}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for life := 0; ; life++ {
		var copied atomic.Int64
		copier := rig.Launch(t, fmt.Sprintf("copier %d", life), []string{program, "-broker", broker.Addr, "-id", "copier"}, func(line string) {
			if strings.Contains(line, " records of orders-") {
				copied.Add(1)
			}
		})
		if life == 4 {
			rig.Eventually(t, patience, "all is copied", func() bool { return committedOf(ctx, t, broker.Addr, "copiers") == records })
			copier.Kill()
			break
		}
		rig.Eventually(t, patience, "it has copied something", func() bool { return copied.Load() > int64(2+life) })
		copier.Kill()
	}
	got := readCommitted(t, broker.Addr, "copies")
	for n := range int32(partitions) {
		if !slices.Equal(got[n], want[n]) {
			t.Errorf("partition %d: %d records were copied of %d, or not in order", n, len(got[n]), len(want[n]))
		}
	}
}
