package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

// dirs are a node's data directories: those of the partitions, and the metadata log's, which may
// be one of them.
type dirs struct {
	data      []*commitlog.Dir
	meta      *commitlog.Dir
	clusterID string
}

// all returns each directory once.
func (d *dirs) all() []*commitlog.Dir {
	if d.meta == nil || slices.Contains(d.data, d.meta) {
		return d.data
	}
	return append(slices.Clone(d.data), d.meta)
}

func (d *dirs) close() error {
	var errs []error
	for _, dir := range slices.Backward(d.all()) {
		if err := dir.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", dir.Path(), err))
		}
	}
	return errors.Join(errs...)
}

// openDirs opens and recovers every data directory, and agrees on the cluster that they belong to.
func openDirs(ctx context.Context, o *Options, observer commitlog.Observer) (*dirs, error) {
	paths := o.Config.LogDirs()
	metaPath := o.Config.MetadataLogDir()
	all := paths
	if !slices.Contains(paths, metaPath) {
		all = append(slices.Clone(paths), metaPath)
	}
	d := &dirs{}
	checker := batch.NewChecker()
	for _, path := range all {
		others := slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == path })
		dir, err := commitlog.OpenDir(ctx, dirOptions(o, path, others, observer, checker))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open data directory %s: %w", path, err), d.close())
		}
		if path == metaPath {
			d.meta = dir
		}
		if slices.Contains(paths, path) {
			d.data = append(d.data, dir)
		}
	}
	if err := d.agree(o); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// agree finds the cluster's id, or makes one where every directory is new.
func (d *dirs) agree(o *Options) error {
	id := ""
	for _, dir := range d.all() {
		switch is := dir.ClusterID(); {
		case is == "":
		case id == "":
			id = is
		case id != is:
			return fmt.Errorf("%s is of cluster %s, another data directory of %s: give the directories of one cluster (key log.dirs)",
				dir.Path(), is, id)
		}
	}
	if id == "" {
		drawn, err := metadata.NewUUID(o.Random)
		if err != nil {
			return fmt.Errorf("draw a cluster id: %w", err)
		}
		id = drawn.String()
	}
	for _, dir := range d.all() {
		if err := dir.SetClusterID(id); err != nil {
			return err
		}
	}
	d.clusterID = id
	return nil
}

func dirOptions(o *Options, path string, others []string, observer commitlog.Observer, checker *batch.Checker) commitlog.DirOptions {
	c := o.Config
	return commitlog.DirOptions{
		FS: o.FS, Path: path, NodeID: int32(c.Int("node.id")), Logger: o.Logger, Observer: observer,
		RecoveryThreads:            c.Int("num.recovery.threads.per.data.dir"),
		ProducerIDExpiration:       c.Millis("producer.id.expiration.ms"),
		ProducerIDCheckInterval:    c.Millis("producer.id.expiration.check.interval.ms"),
		RetentionCheckInterval:     c.Millis("log.retention.check.interval.ms"),
		RecoveryCheckpointInterval: c.Millis("log.flush.offset.checkpoint.interval.ms"),
		StartCheckpointInterval:    c.Millis("log.flush.start.offset.checkpoint.interval.ms"),
		FlushCheckInterval:         c.Millis("log.flush.scheduler.interval.ms"),
		IdleCloseAfter:             c.Millis("log.idle.close.ms"),
		MaxOpenFiles:               c.Int("log.max.open.files"),
		MaxProducerIDs:             c.Int("producer.id.max.entries"),
		OtherDirs:                  others, Checker: checker, Now: o.Now, Rand: o.Random,
	}
}
