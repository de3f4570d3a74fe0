package commitlogtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
)

// TestSampleHasEveryKindOfFile also leaves the samples where BARNABAS_SAMPLES says, to be looked at by hand.
func TestSampleHasEveryKindOfFile(t *testing.T) {
	root := os.Getenv("BARNABAS_SAMPLES")
	if root == "" {
		root = t.TempDir()
	}
	for name, clean := range map[string]bool{"clean": true, "killed": false} {
		path := filepath.Join(root, name)
		release, err := Sample(path, clean)
		if err != nil {
			t.Fatal(err)
		}
		suffixes := []string{".log", ".index", ".timeindex", ".txnindex", ".snapshot", "leader-epoch-checkpoint", "partition.metadata"}
		for _, suffix := range suffixes {
			found, err := filepath.Glob(filepath.Join(path, Topic+"-0", "*"+suffix))
			if err != nil || len(found) == 0 {
				t.Errorf("%s: no %s (%v)", name, suffix, err)
			}
		}
		if root == os.Getenv("BARNABAS_SAMPLES") {
			continue // left as a kill would
		}
		release()
		d, err := commitlog.OpenDir(context.Background(), commitlog.DirOptions{FS: disk.OS, Path: path, NodeID: 1})
		if err != nil {
			t.Fatal(err)
		}
		if found := d.Found(); len(found) != 1 || found[0].Topic != Topic {
			t.Errorf("%s: found %+v", name, found)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
