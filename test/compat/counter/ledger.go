package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"barnabas/client"
)

// ledger has what was counted of the partitions that this member owns, in memory and in files. The
// goroutine that polls uses it, callbacks included.
type ledger struct {
	folder string
	mine   map[int32]*sums
}

// sums is what was counted of a partition, up to the offset Next.
type sums struct {
	Next     int64               `json:"next"`
	Airports map[string]*airport `json:"airports"`
}

type airport struct {
	Flights int64 `json:"flights"`
	Delays  int64 `json:"delays"` // minutes
}

func newLedger(folder string) *ledger { return &ledger{folder: folder, mine: map[int32]*sums{}} }

func (l *ledger) file(partition int32) string {
	return filepath.Join(l.folder, fmt.Sprintf("%d.json", partition))
}

// load reads what was counted of a partition that this member has been given, and returns the offset
// to go on at.
func (l *ledger) load(partition int32) (next int64, err error) {
	s := &sums{Airports: map[string]*airport{}}
	text, err := os.ReadFile(l.file(partition))
	if err == nil {
		err = json.Unmarshal(text, s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("load partition %d: %w", partition, err)
	}
	l.mine[partition] = s
	return s.Next, nil
}

// drop forgets partitions that are another member's from now on.
func (l *ledger) drop(partitions []client.TopicPartition) {
	for _, tp := range partitions {
		delete(l.mine, tp.Partition)
	}
}

// count adds a flight, once.
func (l *ledger) count(partition int32, offset int64, key string, value []byte) error {
	s := l.mine[partition]
	if s == nil {
		return fmt.Errorf("offset %d of partition %d came, which is not this member's", offset, partition)
	}
	if offset < s.Next {
		return nil
	}
	if offset > s.Next {
		return fmt.Errorf("partition %d: offset %d came where %d should", partition, offset, s.Next)
	}
	var flight struct {
		Origin   string
		N, Delay int64
	}
	if err := json.Unmarshal(value, &flight); err != nil {
		return fmt.Errorf("partition %d, offset %d: %w", partition, offset, err)
	}
	a := s.Airports[flight.Origin]
	if a == nil {
		a = &airport{}
		s.Airports[flight.Origin] = a
	}
	if flight.N != a.Flights+1 || flight.Origin != key {
		return fmt.Errorf("partition %d, offset %d: %s came after flight %d", partition, offset, value, a.Flights)
	}
	a.Flights++
	a.Delays += flight.Delay
	s.Next++
	return nil
}

// save replaces a partition's file by what has been counted, and returns once the disk has it.
func (l *ledger) save(partition int32) (next int64, err error) {
	s := l.mine[partition]
	text, err := json.Marshal(s)
	if err != nil {
		return 0, fmt.Errorf("save partition %d: %w", partition, err)
	}
	fresh := filepath.Join(l.folder, fmt.Sprintf("%d.go.%d", partition, os.Getpid()))
	if err := write(fresh, text); err != nil {
		return 0, fmt.Errorf("save partition %d: %w", partition, err)
	}
	if err := os.Rename(fresh, l.file(partition)); err != nil {
		return 0, fmt.Errorf("save partition %d: %w", partition, err)
	}
	if err := flush(l.folder); err != nil {
		return 0, fmt.Errorf("save partition %d: %w", partition, err)
	}
	return s.Next, nil
}

func write(name string, text []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func flush(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// tell prints a line. Only the goroutine that polls does.
func tell(line map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1) // nobody listens
	}
}
