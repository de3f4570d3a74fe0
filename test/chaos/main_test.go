//go:build chaos

package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

const patience = 3 * time.Minute // a machine that is slow and busy with others

// scratch is this process's own, for what all tests build once and for disks: scratchPrefix and its number.
var scratch string

const scratchPrefix = "barnabas-chaos."

func TestMain(m *testing.M) {
	sweep()
	scratch = filepath.Join(os.TempDir(), scratchPrefix+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		panic(err)
	}
	rig.Main(m)
	_ = os.RemoveAll(scratch)
}

// sweep removes what runs that were killed have left: processes and networks end with them, mounts do not.
func sweep() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*"))
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), scratchPrefix))
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		disks, _ := filepath.Glob(filepath.Join(dir, "disk*"))
		for _, disk := range disks {
			_ = exec.Command("umount", "-l", disk).Run() // perhaps it was not mounted yet
		}
		_ = os.RemoveAll(dir)
	}
}

// smallDisk makes a disk that is soon full, of a size as mount takes it.
func smallDisk(t *testing.T, size string) (mount string) {
	t.Helper()
	mount, err := os.MkdirTemp(scratch, "disk")
	if err != nil {
		t.Fatal(err)
	}
	rig.Run(t, nil, "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", mount) // needs root
	t.Cleanup(func() { rig.Run(t, nil, "umount", "-l", mount) })
	return mount
}

// seeded gives the run's random numbers, by rig.Seed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(rig.Seed(t), 0))
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pause lets a fault's time come.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test is over")
	}
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(addr, ",")...), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		// A process that is killed closes its connections, so that nothing hangs on these.
		kgo.RequestTimeoutOverhead(patience / 2), kgo.ProduceRequestTimeout(patience / 2),
	}, opts...)...)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func admin(t *testing.T, addr string) *kadm.Client { return kadm.NewClient(client(t, addr)) }

func createTopic(t *testing.T, addr, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	set := map[string]*string{}
	for k, v := range configs {
		set[k] = &v
	}
	adm, ctx := admin(t, addr), within(t, patience)
	if _, err := adm.CreateTopic(ctx, partitions, 1, set, topic); err != nil {
		t.Fatalf("create %s: %v", topic, err)
	}
	rig.Eventually(t, patience, "every partition of "+topic+" has a leader", func() bool {
		ends, err := adm.ListEndOffsets(ctx, topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == int(partitions)
	})
}

// read consumes a topic from its start to its ends as they stand now.
func read(t *testing.T, addr, topic string) map[int32]map[int64]string {
	t.Helper()
	ctx := within(t, 2*patience)
	adm := admin(t, addr)
	var starts, ends kadm.ListedOffsets
	rig.Eventually(t, patience, "every partition of "+topic+" has a leader again", func() bool {
		var err error
		if starts, err = adm.ListStartOffsets(ctx, topic); err == nil && starts.Error() == nil {
			ends, err = adm.ListEndOffsets(ctx, topic)
		}
		return err == nil && starts.Error() == nil && ends.Error() == nil
	})
	missing := map[int32]int64{}
	for p, end := range ends[topic] {
		if end.Offset > starts[topic][p].Offset {
			missing[p] = end.Offset
		}
	}
	cl := client(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	got := map[int32]map[int64]string{}
	for len(missing) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v; not read to its end: %v", topic, err, missing)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if got[r.Partition] == nil {
				got[r.Partition] = map[int64]string{}
			}
			got[r.Partition][r.Offset] = string(r.Value)
			if end, ok := missing[r.Partition]; ok && r.Offset >= end-1 {
				delete(missing, r.Partition)
			}
		})
	}
	return got
}
