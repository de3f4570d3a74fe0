package node

import (
	"math"
	"slices"

	"barnabas/internal/config"
)

// descriptors is how the files that the process may have open (RLIMIT_NOFILE) are shared: without a
// bound of ours the system would refuse whatever comes next, be it a connection or a segment.
type descriptors struct {
	limit       int // of the process; 0: not known, and nothing is bounded
	filesPerDir int // kept open in one data directory, at most log.max.open.files
	connections int // at one time, at most max.connections
}

const (
	// fixedDescriptors are for listeners, locks, the metadata log, the administrator and what a
	// recovery has open.
	fixedDescriptors = 64
	// fewDescriptors is the limit below which a start warns: what connections and segments get of it
	// is less than a busy broker needs.
	fewDescriptors = 10_000
	// fewFilesPerDir is how many open files a data directory should be allowed before a start warns.
	fewFilesPerDir = 1024
)

// shareDescriptors gives the directories' files up to two fifths of the limit, keeps a tenth for
// files that are open for the length of a request, and leaves the rest to connections.
func shareDescriptors(limit, dirs, mostFiles int) descriptors {
	if limit <= 0 {
		return descriptors{filesPerDir: mostFiles, connections: math.MaxInt32}
	}
	usable := max(limit-fixedDescriptors, 0)
	files := max(min(mostFiles, usable*2/5/dirs), 1)
	return descriptors{
		limit: limit, filesPerDir: files,
		connections: min(max(usable-usable/10-files*dirs, 1), math.MaxInt32),
	}
}

func (o *Options) descriptors() descriptors {
	dirs := o.Config.LogDirs()
	if !slices.Contains(dirs, o.Config.MetadataLogDir()) {
		dirs = append(slices.Clone(dirs), o.Config.MetadataLogDir())
	}
	return shareDescriptors(o.OpenFiles, len(dirs), o.Config.Int("log.max.open.files"))
}

// checkDescriptors tells the operator where the limit is below what was asked for, or generally low.
func (n *Node) checkDescriptors() {
	d, c := n.o.descriptors(), n.o.Config
	files, connections := c.Int("log.max.open.files"), c.Int("max.connections")
	asked := connections > d.connections && connections < math.MaxInt32
	if d.limit == 0 || d.limit >= fewDescriptors && d.filesPerDir >= min(files, fewFilesPerDir) && !asked {
		return
	}
	n.log.Warn("the limit of open files is low: raise it (ulimit -n, or LimitNOFILE= of systemd)",
		"limit", d.limit, "connections", min(connections, d.connections), "max.connections", connections,
		"open_files_per_directory", min(files, d.filesPerDir), "log.max.open.files", files)
}

// mostConnections is max.connections as far as the limit of open files allows it.
func (o *Options) mostConnections(now *config.Set) int {
	return min(now.Int("max.connections"), o.descriptors().connections)
}
