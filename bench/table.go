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

// sample is one measurement: by metric.
type sample map[string]float64

// round is one sample of each variant.
type round map[string]sample

type result struct {
	row    row
	rounds []round
}

// metric is a column of samples and how to show it.
type metric struct {
	key, shown, unit string
}

// bar is what a row must reach: a variant's metric against another's, or on its own.
type bar struct {
	variant, metric string
	against         string // "" for an absolute figure
	atLeast         bool
	limit           float64
	aim             string
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (r result) values(variant, metric string) (values []float64) {
	for _, round := range r.rounds {
		if s, ok := round[variant]; ok {
			values = append(values, s[metric])
		}
	}
	return values
}

func (r result) ratios(variant, against, metric string) (values []float64) {
	for _, round := range r.rounds {
		if below := round[against][metric]; below > 0 {
			values = append(values, round[variant][metric]/below)
		}
	}
	return values
}

func (r result) metric(key string) metric {
	for _, m := range r.row.metrics {
		if m.key == key {
			return m
		}
	}
	return metric{key, key, ""}
}

// verdicts says for each bar what was reached.
func (r result) verdicts() (lines [][]string) {
	for _, b := range r.row.bars {
		m := r.metric(b.metric)
		ours := median(r.values(b.variant, b.metric))
		cells := []string{r.row.title, b.variant + ": " + m.shown}
		var got []float64
		unit := " " + m.unit
		if b.against != "" {
			got, unit = r.ratios(b.variant, b.against, b.metric), "x"
			cells = append(cells, shown(median(r.values(b.against, b.metric)))+" "+m.unit)
		} else {
			got = r.values(b.variant, b.metric)
			cells = append(cells, "")
		}
		if len(got) == 0 || len(r.values(b.variant, b.metric)) == 0 { // one side was measured alone
			continue
		}
		reached := median(got)
		sign, held := "at most ", reached <= b.limit
		if b.atLeast {
			sign, held = "at least ", reached >= b.limit
		}
		verdict := "**no**"
		if held {
			verdict = "yes"
		}
		cells = append(cells, shown(ours)+" "+m.unit, fmt.Sprintf("%s%s (%s to %s)", shown(reached), unit, shown(slices.Min(got)), shown(slices.Max(got))),
			sign+shown(b.limit)+unit, b.aim, verdict)
		lines = append(lines, cells)
	}
	return lines
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
	return fmt.Sprintf("%.2f", f)
}

func tableLines(r result) (lines []string) {
	for _, cells := range r.verdicts() {
		lines = append(lines, "| "+strings.Join(cells, " | ")+" |\n")
	}
	return lines
}

// writeRow shows a row's every figure while the run goes on.
func writeRow(w io.Writer, r result) {
	fmt.Fprintf(w, "\n%s (%s), %d rounds\n", r.row.title, r.row.name, len(r.rounds))
	for _, m := range r.row.metrics {
		for _, v := range r.row.variants {
			if values := r.values(v, m.key); len(values) > 0 {
				var each []string
				for _, x := range values {
					each = append(each, shown(x))
				}
				fmt.Fprintf(w, "  %-24s %-12s median %-8s %-16s [%s]\n", m.shown, v, shown(median(values)), m.unit, strings.Join(each, " "))
			}
		}
	}
	for _, cells := range r.verdicts() {
		fmt.Fprintf(w, "  => %s: %s, %s: %s (aim %s)\n", cells[1], cells[4], cells[5], cells[7], cells[6])
	}
}

func writeHead(w io.Writer, o options) {
	commit, _ := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Fprintf(w, "\n## %s, commit %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), strings.TrimSpace(string(commit)))
	fmt.Fprintf(w, "%d processors shared with the driver, Linux %s, %s, Apache Kafka 4.3.1 with its defaults, %d rounds, scale %g. "+
		"Medians; ratios are medians of the rounds' ratios, with the smallest and the largest.\n\n",
		runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), o.pairs, o.scale)
	fmt.Fprintln(w, "| What | Which | Against | Ours | Reached | Bar | Aim | Held |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
}
