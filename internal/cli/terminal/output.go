package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Format is how a result is shown.
type Format string

const (
	formatTable Format = "table"
	FormatJSON  Format = "json"
)

// RegisterFormat adds -o.
func RegisterFormat(c *cobra.Command, flags *pflag.FlagSet, f *Format) {
	*f = formatTable
	flags.VarP(f, "output", "o", "show the result as `table or json`")
	// The only error is a flag that does not exist, and it was made in the line above.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *Format) String() string { return string(*f) }

// Type names the flag's type for cobra's help.
func (f *Format) Type() string { return "format" }

// Set takes the flag's value.
func (f *Format) Set(s string) error {
	switch Format(s) {
	case formatTable, FormatJSON:
		*f = Format(s)
		return nil
	}
	return fmt.Errorf("%q is neither table nor json", s)
}

// Show writes v as JSON, or what text writes.
func (p *Program) Show(f Format, v any, text func() error) error {
	if f != FormatJSON {
		return text()
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("make JSON of the result: %w", err)
	}
	return p.Write(append(out, '\n'))
}

// Write is for results: what cannot be written to standard output is a failure.
func (p *Program) Write(b []byte) error {
	if _, err := p.Out.Write(b); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// Note tells the user something beside the result.
func (p *Program) Note(format string, args ...any) {
	fmt.Fprintf(p.Err, format+"\n", args...)
}

// IsTerminal tells whether a person looks at a stream.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Columns is the width of a terminal, 80 where it does not say.
func Columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return 80
}

// Table is rows under a heading, in aligned columns. Numbers stand to the right.
type Table struct {
	heading []string
	Rows    [][]string
}

func NewTable(heading ...string) *Table { return &Table{heading: heading} }

func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Cell(c)
	}
	t.Rows = append(t.Rows, row)
}

// Cell words a value: nothing is a dash, so that columns can be cut apart by blanks.
func Cell(v any) string {
	switch v := v.(type) {
	case []int32:
		parts := make([]string, len(v))
		for i, n := range v {
			parts[i] = strconv.Itoa(int(n))
		}
		return Cell(strings.Join(parts, ","))
	case string:
		if v == "" {
			return "-"
		}
		return v
	}
	return fmt.Sprint(v)
}

// Render gives the table; styled underlines the heading for a terminal.
func (t *Table) Render(styled bool) []byte {
	widths := make([]int, len(t.heading))
	right := make([]bool, len(t.heading))
	for i, h := range t.heading {
		widths[i] = utf8.RuneCountInString(h)
		right[i] = len(t.Rows) > 0
	}
	for _, row := range t.Rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
			if c != "-" && !isNumber(c) {
				right[i] = false
			}
		}
	}
	var out strings.Builder
	line := func(cells []string) string {
		var b strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i > 0 {
				b.WriteString("  ")
			}
			if right[i] {
				c, pad = pad+c, ""
			}
			b.WriteString(c + pad)
		}
		return strings.TrimRight(b.String(), " ")
	}
	heading := line(t.heading)
	if styled {
		heading = "\x1b[1m" + heading + "\x1b[0m"
	}
	out.WriteString(heading + "\n")
	for _, row := range t.Rows {
		out.WriteString(line(row) + "\n")
	}
	return []byte(out.String())
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(strings.TrimRight(s, " kMGiB"), 64)
	return err == nil
}

// ShowTable writes a table, or a sentence where it is empty.
func (p *Program) ShowTable(t *Table, ifEmpty string) error {
	if len(t.Rows) == 0 && ifEmpty != "" {
		p.Note("%s", ifEmpty)
		return nil
	}
	return p.Write(t.Render(IsTerminal(p.Out) && p.Env("NO_COLOR") == ""))
}

// HumanBytes words a size.
func HumanBytes(n int64) string {
	if n < 0 {
		return "?"
	}
	v, unit := float64(n), 0
	for v >= 1024 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, [...]string{"", "KiB", "MiB", "GiB", "TiB"}[unit])
}

// HumanCount puts separators into a number: 3,000,000.
func HumanCount(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Plural words a count: 1 topic, 2 topics.
func Plural[N int | int32 | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return HumanCount(int64(n)) + " " + what + "s"
}
