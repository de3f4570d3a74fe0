package commitlog

import (
	"errors"
	"fmt"
	"io/fs"

	"barnabas/internal/commitlog/identity"
	"barnabas/internal/disk"
	"barnabas/internal/uuid"
)

var (
	// ErrNewerFormat: the directory was written by a later version, which may keep what this one would destroy.
	ErrNewerFormat = identity.ErrNewerFormat
	// ErrForeign: the directory belongs to another node or cluster.
	ErrForeign = errors.New("data directory belongs to another node or cluster")
)

// loadMeta reads or makes the directory's identity. Without a cluster id a new directory gets its file later, from
// SetClusterID: meta.properties of version 1 has one.
func (d *Dir) loadMeta(o *DirOptions) error {
	data, err := disk.ReadFile(d.fs, d.join(identity.MetaFile), identity.MaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.mu.meta.NodeID = o.NodeID
		if d.mu.meta.DirectoryID, err = uuid.New(o.Rand); err != nil || o.ClusterID == "" {
			return err
		}
		return d.SetClusterID(o.ClusterID)
	case err != nil:
		return err
	}
	m, err := identity.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", d.join(identity.MetaFile), err)
	}
	if m.NodeID != o.NodeID {
		return fmt.Errorf("%s: it is node %d's, this is node %d: %w", d.join(identity.MetaFile), m.NodeID, o.NodeID, ErrForeign)
	}
	if o.ClusterID != "" && m.ClusterID != o.ClusterID {
		return fmt.Errorf("%s: it is of cluster %s, this node is of %s: %w", d.join(identity.MetaFile), m.ClusterID, o.ClusterID, ErrForeign)
	}
	d.mu.meta = m
	if m.DirectoryID.IsZero() {
		if d.mu.meta.DirectoryID, err = uuid.New(o.Rand); err != nil {
			return err
		}
		return disk.WriteFileAtomic(d.fs, d.join(identity.MetaFile), d.mu.meta.Format(d.now()))
	}
	return nil
}

// SetClusterID writes the identity of a directory that has none yet: the cluster was formed, or joined, after the
// directory was opened. It is durable when this returns.
func (d *Dir) SetClusterID(id string) error {
	d.mu.Lock()
	m := d.mu.meta
	d.mu.Unlock()
	if m.ClusterID != "" && m.ClusterID != id {
		return fmt.Errorf("%s is of cluster %s, not %s: %w", d.path, m.ClusterID, id, ErrForeign)
	}
	if m.ClusterID == id {
		return nil
	}
	m.ClusterID = id
	if err := disk.WriteFileAtomic(d.fs, d.join(identity.MetaFile), m.Format(d.now())); err != nil {
		return fmt.Errorf("write %s: %w", identity.MetaFile, err)
	}
	d.mu.Lock()
	d.mu.meta = m
	d.mu.Unlock()
	return nil
}
