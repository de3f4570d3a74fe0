// Command flights turns the flights of the npm package vega-datasets (flights-3m.parquet) into JSON
// lines, one per flight in the order of the file, with a number that runs per airport of origin.
//
//	flights [-n ROWS] FILE
//
// It is a module of its own, so that reading Parquet is no dependency of the broker.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/parquet-go/parquet-go"
)

// row is a flight as the file has it.
type row struct {
	Date        time.Time `parquet:"date"`
	Delay       int64     `parquet:"delay"`
	Distance    int64     `parquet:"distance"`
	Origin      string    `parquet:"origin"`
	Destination string    `parquet:"destination"`
}

// flight is what is written.
type flight struct {
	Origin      string `json:"origin"`
	N           int    `json:"n"` // the airport's n-th flight, from 1
	Date        string `json:"date"`
	Delay       int64  `json:"delay"`    // minutes
	Distance    int64  `json:"distance"` // miles
	Destination string `json:"destination"`
}

const rowsAtOnce = 4096

func main() {
	n := flag.Int("n", 0, "write so many rows at most; 0 is all")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := convert(os.Stdout, flag.Arg(0), *n); err != nil {
		fmt.Fprintln(os.Stderr, "flights:", err)
		os.Exit(1)
	}
}

func convert(w io.Writer, name string, limit int) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	rows := parquet.NewGenericReader[row](f)
	defer rows.Close()
	out := bufio.NewWriterSize(w, 1<<20)
	lines := json.NewEncoder(out)
	counts := map[string]int{}
	buf := make([]row, rowsAtOnce)
	for written := 0; ; {
		got, err := rows.Read(buf)
		for _, r := range buf[:got] {
			if limit > 0 && written == limit {
				return out.Flush()
			}
			written++
			counts[r.Origin]++
			if err := lines.Encode(flight{
				r.Origin, counts[r.Origin], r.Date.UTC().Format("2006-01-02T15:04"), r.Delay, r.Distance, r.Destination,
			}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
}
