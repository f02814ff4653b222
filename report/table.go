// Package report turns measurements into tables and figures. It knows nothing of models and attacks: it is given names
// and numbers.
package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Align is the side of its column that a cell keeps to.
type Align int

// The sides.
const (
	Left  Align = iota // words
	Right              // numbers
)

// Column is the head of a column. On a terminal its name is broken between words where the cells are narrower.
type Column struct {
	Name  string
	Align Align
}

// Table is words and numbers under heads, with notes below.
type Table struct {
	Title   string
	Columns []Column
	Rows    [][]string
	Notes   []string
}

// Add appends a row: one cell for each column.
func (t *Table) Add(cells ...string) {
	if len(cells) != len(t.Columns) {
		panic(fmt.Sprintf("report: a row of %d cells in a table of %d columns", len(cells), len(t.Columns)))
	}
	t.Rows = append(t.Rows, cells)
}

// TerminalWidth is the most characters that a line of Text takes, as long as its numbers fit.
const TerminalWidth = 100

const gap = "  "

// Text writes the table aligned for a terminal. Where it would be wider than TerminalWidth the widest columns of words
// but the first, which holds names to type, become narrower and their cells take several lines. Columns that do not fit
// even then follow below, beside the first one again.
func (t *Table) Text(w io.Writer) error {
	var b strings.Builder
	if t.Title != "" {
		b.WriteString(t.Title + "\n\n")
	}
	for i, part := range t.split() {
		if i > 0 {
			b.WriteByte('\n')
		}
		part.body(&b)
	}
	if len(t.Notes) > 0 {
		b.WriteByte('\n')
	}
	for _, note := range t.Notes {
		b.WriteString(strings.Join(wrap(note, TerminalWidth), "\n") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// split is the table in parts that fit a terminal, each with the first column and as many of the others as there is room
// for.
func (t *Table) split() []*Table {
	n := len(t.Columns)
	for n > 2 && width(t.first(n).widths()) > TerminalWidth {
		n--
	}
	if n == len(t.Columns) {
		return []*Table{t}
	}
	rest := &Table{Columns: append([]Column{t.Columns[0]}, t.Columns[n:]...)}
	for _, row := range t.Rows {
		rest.Rows = append(rest.Rows, append([]string{row[0]}, row[n:]...))
	}
	return append([]*Table{t.first(n)}, rest.split()...)
}

// first is the table of the first n columns.
func (t *Table) first(n int) *Table {
	part := &Table{Columns: t.Columns[:n]}
	for _, row := range t.Rows {
		part.Rows = append(part.Rows, row[:n])
	}
	return part
}

func width(columns []int) int {
	sum := len(gap) * (len(columns) - 1)
	for _, w := range columns {
		sum += w
	}
	return sum
}

// body writes heads and rows.
func (t *Table) body(b *strings.Builder) {
	widths := t.widths()
	heads := make([][]string, len(t.Columns))
	lines := 0
	for i, c := range t.Columns {
		heads[i] = wrap(c.Name, widths[i])
		lines = max(lines, len(heads[i]))
	}
	for line := range lines {
		cells := make([]string, len(heads))
		for i, head := range heads { // heads stand on the rule below them
			if at := line - (lines - len(head)); at >= 0 {
				cells[i] = head[at]
			}
		}
		t.line(b, cells, widths)
	}
	rule := make([]string, len(widths))
	for i, width := range widths {
		rule[i] = strings.Repeat("─", width)
	}
	t.line(b, rule, widths)
	for _, row := range t.Rows {
		t.block(b, row, widths)
	}
}

// widths are the columns' widths in characters: those of the widest cell or word of the head, less what is cut.
func (t *Table) widths() []int {
	widths := make([]int, len(t.Columns))
	total := len(gap) * (len(t.Columns) - 1)
	for i, c := range t.Columns {
		for _, word := range strings.Fields(c.Name) {
			widths[i] = max(widths[i], utf8.RuneCountInString(word))
		}
		for _, row := range t.Rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		total += widths[i]
	}
	for ; total > TerminalWidth; total-- {
		widest := -1
		for i, c := range t.Columns {
			if i > 0 && c.Align == Left && widths[i] > 8 && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// block writes a row; words that do not fit their column go on below.
func (t *Table) block(b *strings.Builder, row []string, widths []int) {
	columns, lines := make([][]string, len(row)), 1
	for i, cell := range row {
		columns[i] = []string{cell}
		if t.Columns[i].Align == Left {
			columns[i] = wrap(cell, widths[i])
		}
		lines = max(lines, len(columns[i]))
	}
	for n := range lines {
		cells := make([]string, len(row))
		for i, c := range columns {
			if n < len(c) {
				cells[i] = c[n]
			}
		}
		t.line(b, cells, widths)
	}
}

func (t *Table) line(b *strings.Builder, cells []string, widths []int) {
	var line strings.Builder
	for i, cell := range cells {
		if i > 0 {
			line.WriteString(gap)
		}
		if runes := []rune(cell); len(runes) > widths[i] {
			cell = string(runes[:widths[i]-1]) + "…"
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if t.Columns[i].Align == Right {
			line.WriteString(pad + cell)
		} else {
			line.WriteString(cell + pad)
		}
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// wrap breaks text between words into lines of at most width characters, longer words aside.
func wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last])+1+utf8.RuneCountInString(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

var markdown = strings.NewReplacer(`\`, `\\`, "|", `\|`, "\n", " ", "\r", " ")

// Markdown writes the table as GitHub's Markdown.
func (t *Table) Markdown(w io.Writer) error {
	var b strings.Builder
	if t.Title != "" {
		b.WriteString("**" + markdown.Replace(t.Title) + "**\n\n")
	}
	row := func(cells []string) {
		for _, cell := range cells {
			b.WriteString("| " + markdown.Replace(cell) + " ")
		}
		b.WriteString("|\n")
	}
	heads, rule := make([]string, len(t.Columns)), make([]string, len(t.Columns))
	for i, c := range t.Columns {
		heads[i], rule[i] = c.Name, [...]string{Left: ":--", Right: "--:"}[c.Align]
	}
	row(heads)
	row(rule)
	for _, cells := range t.Rows {
		row(cells)
	}
	for _, note := range t.Notes {
		b.WriteString("\n" + markdown.Replace(note) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// CSV writes heads and rows as comma-separated values (RFC 4180), without title and notes.
func (t *Table) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	heads := make([]string, len(t.Columns))
	for i, column := range t.Columns {
		heads[i] = column.Name
	}
	if err := c.Write(heads); err != nil {
		return err
	}
	return c.WriteAll(t.Rows)
}
