package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/uuid"
)

// dirs are a node's data directories: those of the partitions, and the metadata log's, which may
// be one of them.
type dirs struct {
	data      []*commitlog.Dir
	leftOut   []string // paths of data directories that have failed
	meta      *commitlog.Dir
	cleaner   *commitlog.Cleaner // nil without log.cleaner.enable
	clusterID string
}

// all returns each directory once.
func (d *dirs) all() []*commitlog.Dir {
	if d.meta == nil || slices.Contains(d.data, d.meta) {
		return d.data
	}
	return append(slices.Clone(d.data), d.meta)
}

// cleanEpoch is the broker epoch in which all data directories were left by one clean stop; commitlog.NoEpoch: they were not.
// That of the metadata log alone has no replicas, and does not count.
func (d *dirs) cleanEpoch() int64 {
	if len(d.leftOut) > 0 {
		return commitlog.NoEpoch
	}
	epoch := d.data[0].CleanEpoch()
	for _, dir := range d.data {
		if dir.CleanEpoch() != epoch {
			return commitlog.NoEpoch
		}
	}
	return epoch
}

// setBrokerEpoch says under which registration the directories were written, for the marks of a clean stop.
func (d *dirs) setBrokerEpoch(epoch int64) {
	for _, dir := range d.all() {
		dir.SetBrokerEpoch(epoch)
	}
}

func (d *dirs) close() error {
	var errs []error
	for _, dir := range slices.Backward(d.all()) {
		if err := dir.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", dir.Path(), err))
		}
	}
	if d.cleaner != nil {
		d.cleaner.Close()
	}
	return errors.Join(errs...)
}

// openDirs opens and recovers every data directory, and agrees on the cluster that they belong to.
// A directory that has failed, now or before, is left out as long as there are others: only its
// partitions are lost. Without the metadata log's nothing goes.
func openDirs(ctx context.Context, o *Options, observer commitlog.Observer, leftOut func()) (*dirs, error) {
	paths := o.Config.LogDirs()
	metaPath := o.Config.MetadataLogDir()
	all := paths
	if !slices.Contains(paths, metaPath) {
		all = append(slices.Clone(paths), metaPath)
	}
	d := &dirs{}
	checker := batch.NewChecker()
	if o.Config.Bool("log.cleaner.enable") {
		d.cleaner = commitlog.NewCleaner(cleanerOptions(o, o.Config))
	}
	var failed []error
	for _, path := range all {
		others := slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == path })
		dir, err := commitlog.OpenDir(ctx, dirOptions(o, path, others, observer, checker, d.cleaner))
		if err != nil {
			failed = append(failed, err)
			if path == metaPath || ctx.Err() != nil || !hasFailed(err) {
				return nil, errors.Join(err, d.close())
			}
			o.Logger.Error("data directory has failed and is left out; its partitions are unavailable", "dir", path, "err", err)
			leftOut()
			d.leftOut = append(d.leftOut, path)
			continue
		}
		dir.SetBrokerEpoch(dir.CleanEpoch()) // no replica's log is touched before this process registers (Node.register)
		if path == metaPath {
			d.meta = dir
		}
		if slices.Contains(paths, path) {
			d.data = append(d.data, dir)
		}
	}
	if len(d.data) == 0 {
		return nil, errors.Join(fmt.Errorf("no data directory can be used: %w", errors.Join(failed...)), d.close())
	}
	if err := d.agree(o); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// hasFailed tells a directory whose disk does not work from one that is not meant for this node.
func hasFailed(err error) bool {
	var file *fs.PathError
	var link *os.LinkError
	return errors.Is(err, commitlog.ErrMarked) || errors.Is(err, commitlog.ErrOffline) || errors.As(err, &file) || errors.As(err, &link)
}

// agree finds the cluster's id. Where every directory is new, a node that is its quorum alone makes one;
// another learns it from its voters, and d.clusterID is "" until then.
func (d *dirs) agree(o *Options) error {
	id, first := "", ""
	for _, dir := range d.all() {
		switch is := dir.ClusterID(); {
		case is == "":
		case id == "":
			id, first = is, dir.Path()
		case id != is:
			return fmt.Errorf("%s is of cluster %s and %s of %s: give the directories of one cluster (key log.dirs)",
				first, id, dir.Path(), is)
		}
	}
	if d.clusterID = id; len(o.Config.Voters()) > 1 {
		return nil
	}
	if id == "" {
		drawn, err := uuid.New(o.Random)
		if err != nil {
			return fmt.Errorf("draw a cluster id: %w", err)
		}
		d.clusterID = drawn.String()
	}
	return d.setClusterID()
}

// setClusterID writes the cluster's id into every directory.
func (d *dirs) setClusterID() error {
	for _, dir := range d.all() {
		if err := dir.SetClusterID(d.clusterID); err != nil {
			return err
		}
	}
	return nil
}

// partitionLogs counts the logs that were found, but for the metadata's own, and those among them that are
// of a topic which the metadata has.
func (d *dirs) partitionLogs(image *metadata.Image) (all, known int) {
	for _, dir := range d.data {
		for _, found := range dir.Found() {
			if found.Topic == metadataTopic {
				continue
			}
			all++
			if _, has := image.TopicByID(found.TopicID); has {
				known++
			}
		}
	}
	return all, known
}

// metadataElsewhere finds a metadata log in a directory that is not the one it is expected in.
func (d *dirs) metadataElsewhere() (path string, found bool) {
	in := func(dir *commitlog.Dir) bool {
		return slices.ContainsFunc(dir.Found(), func(f commitlog.Found) bool { return f.Topic == metadataTopic })
	}
	if in(d.meta) {
		return "", false
	}
	for _, dir := range d.data {
		if in(dir) {
			return dir.Path(), true
		}
	}
	return "", false
}

// shortestInterval is what an interval of 0 ms means: as often as possible, and no busy loop.
const shortestInterval = time.Millisecond

const metadataTopic = "__cluster_metadata"

// atLeast keeps a duration that may be 0 in the configuration from meaning "the default".
func atLeast(d, least time.Duration) time.Duration { return max(d, least) }

func dirOptions(o *Options, path string, others []string, observer commitlog.Observer, checker *batch.Checker, cleaner *commitlog.Cleaner) commitlog.DirOptions {
	c := o.Config
	return commitlog.DirOptions{
		FS: o.FS, Path: path, NodeID: int32(c.Int("node.id")), Logger: o.Logger, Observer: observer,
		RecoveryThreads:            c.Int("num.recovery.threads.per.data.dir"),
		ProducerIDExpiration:       c.Millis("producer.id.expiration.ms"),
		ProducerIDCheckInterval:    c.Millis("producer.id.expiration.check.interval.ms"),
		RetentionCheckInterval:     c.Millis("log.retention.check.interval.ms"),
		RecoveryCheckpointInterval: atLeast(c.Millis("log.flush.offset.checkpoint.interval.ms"), shortestInterval),
		StartCheckpointInterval:    atLeast(c.Millis("log.flush.start.offset.checkpoint.interval.ms"), shortestInterval),
		FlushCheckInterval:         c.Millis("log.flush.scheduler.interval.ms"),
		InitialTaskDelay:           atLeast(c.Millis("log.initial.task.delay.ms"), time.Nanosecond),
		IdleCloseAfter:             c.Millis("log.idle.close.ms"),
		MaxDecompressedBytes:       c.Int("message.max.decompressed.bytes"),
		MaxOpenFiles:               o.descriptors().filesPerDir,
		MaxProducerIDs:             c.Int("producer.id.max.entries"),
		OtherDirs:                  others, Checker: checker, Cleaner: cleaner, Now: o.Now, Rand: o.Random,
	}
}

// cleanerOptions are those of the settings in force, which may have changed since the start.
func cleanerOptions(o *Options, now *config.Set) commitlog.CleanerOptions {
	return commitlog.CleanerOptions{
		Threads: now.Int("log.cleaner.threads"), BufferBytes: max(now.Int64("log.cleaner.dedupe.buffer.size"), 1),
		LoadFactor: now.Float("log.cleaner.io.buffer.load.factor"), IOBufferBytes: max(now.Int("log.cleaner.io.buffer.size"), 1),
		IOBytesPerSecond: now.Float("log.cleaner.io.max.bytes.per.second"),
		Backoff:          atLeast(now.Millis("log.cleaner.backoff.ms"), shortestInterval), Logger: o.Logger, Now: o.Now,
	}
}
