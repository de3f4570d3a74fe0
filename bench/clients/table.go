package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// pair is a sample of each client.
type pair map[string]sample

type result struct {
	row   row
	pairs []pair
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (r result) values(client, metric string) (values []float64) {
	for _, p := range r.pairs {
		values = append(values, p[client][metric])
	}
	return values
}

// ratios are ours to franz-go's, pair by pair.
func (r result) ratios(metric string) (values []float64) {
	for _, p := range r.pairs {
		if below := p[clients[1]][metric]; below > 0 {
			values = append(values, p[clients[0]][metric]/below)
		}
	}
	return values
}

// cells are a line of the table.
func (r result) cells(b bar) []string {
	theirs, ours, ratios := median(r.values(clients[1], b.metric)), median(r.values(clients[0], b.metric)), r.ratios(b.metric)
	if len(ratios) == 0 {
		ratios = []float64{0}
	}
	reached, sign := median(ratios), "at most "
	held := reached <= b.limit
	if b.atLeast {
		sign, held = "at least ", reached >= b.limit
	}
	verdict := "**no**"
	if held {
		verdict = "yes"
	}
	return []string{
		r.row.title + ": " + b.shown, shown(theirs) + " " + b.unit, shown(ours) + " " + b.unit,
		fmt.Sprintf("%.2fx (%.2f to %.2f)", reached, slices.Min(ratios), slices.Max(ratios)),
		fmt.Sprintf("%s%.1fx", sign, b.limit), b.aim, verdict,
	}
}

func shown(f float64) string {
	switch {
	case f >= 10_000:
		return fmt.Sprintf("%.0fk", f/1000)
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.3f", f)
}

// write shows every figure while the run goes on.
func (r result) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s (%s), %d pairs\n", r.row.title, r.row.name, len(r.pairs))
	for _, b := range r.row.bars {
		for _, client := range clients {
			var each []string
			for _, v := range r.values(client, b.metric) {
				each = append(each, shown(v))
			}
			fmt.Fprintf(w, "  %-24s %-10s median %-9s %-3s [%s]\n", b.shown, client, shown(median(r.values(client, b.metric))), b.unit, strings.Join(each, " "))
		}
		cells := r.cells(b)
		fmt.Fprintf(w, "  => %s, %s (aim %s): %s\n", cells[3], cells[4], cells[5], cells[6])
	}
}

func appendTable(o options, results []result) error {
	f, err := os.OpenFile(o.appendTo, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	commit, _ := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	against := "our broker, topics that do not wait for the disk"
	switch {
	case o.brokers != "":
		against = "the broker at " + o.brokers
	case o.durable:
		against = "our broker, durable topics"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "\n## %s, the Go client beside franz-go 1.22, commit %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), strings.TrimSpace(string(commit)))
	fmt.Fprintf(&text, "%d processors shared with the broker, Linux %s, %s; %s; %d partitions, %d pairs, scale %g. Medians; ratios are medians of the pairs' ratios, with the smallest and the largest.\n\n",
		runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), against, o.partitions, o.pairs, o.scale)
	fmt.Fprintln(&text, "| What | franz-go | Ours | Reached | Bar | Aim | Held |")
	fmt.Fprintln(&text, "|---|---|---|---|---|---|---|")
	for _, r := range results {
		for _, b := range r.row.bars {
			fmt.Fprintln(&text, "| "+strings.Join(r.cells(b), " | ")+" |")
		}
	}
	_, err = io.WriteString(f, text.String())
	return err
}
