package report

import (
	"encoding/csv"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var conditions = Conditions{Data: "cifar10 test", Images: 1000, Norm: "Linf", Epsilon: "8/255"}

func example() []Model {
	return []Model{
		{Name: "resnet18", Parameters: 11_173_962, MACs: 556_651_520, Training: 3723 * time.Second,
			Selection: "best PGD-10 accuracy on 1000 held-out training images",
			Accuracies: []Accuracy{
				{Attack: "clean", Hits: 843, Total: 1000, Low: 0.8192, High: 0.8642},
				{Attack: "pgd-20", Hits: 561, Total: 1000, Low: 0.5301, High: 0.5915}}},
		{Name: "resnet8-w8", Parameters: 19_858, MACs: 3_150_000, Selection: "last epoch",
			Accuracies: []Accuracy{{Attack: "clean", Hits: 700, Total: 1000, Low: 0.6709, High: 0.7276}}},
	}
}

func text(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestModels(t *testing.T) {
	table := Models("Students", conditions, example())
	want := `Students

                                      pgd-20
                                         eps
model       parameters   MACs  clean   8/255  training
──────────  ──────────  ─────  ─────  ──────  ────────
resnet18         11.2M   557M  84.30   56.10     1h02m
resnet8-w8       19.9k  3.15M  70.00       -         -

1000 images of cifar10 test; Linf perturbations, eps 8/255. Accuracies in percent with 95% Wilson
intervals. No interval reaches further than 3.09 from its accuracy.
Checkpoints: resnet18: best PGD-10 accuracy on 1000 held-out training images; resnet8-w8: last
epoch.
`
	if got := text(t, table.Text); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Columns that a line has no room for follow below, with the names again.
func TestWideTablesAreSplit(t *testing.T) {
	models := example()
	worst := 0.321
	models[0].Worst, models[0].Latency = &worst, 1230*time.Microsecond
	models[0].Name = strings.Repeat("long name ", 6)
	table := Models("", conditions, models)
	got := text(t, table.Text)
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > TerminalWidth {
			t.Errorf("a line has %d characters: %s", n, line)
		}
	}
	if strings.Count(got, "\nmodel ") != 2 || strings.Count(got, "\nresnet8-w8 ") != 2 || strings.Count(got, "1.23ms") != 1 || strings.Count(got, "Latency") != 1 ||
		strings.Index(got, "32.10") > strings.Index(got, "1.23ms") || len(table.Columns) != 8 {
		t.Errorf("a wide table is shown as\n%s", got)
	}
}

func TestAttacks(t *testing.T) {
	table := Attacks("", conditions, "last epoch", []Accuracy{
		{Attack: "clean", Hits: 843, Total: 1000, Low: 0.8192, High: 0.8642, WorstClass: "cat", WorstAccuracy: 0.67},
		{Attack: "worst case", Hits: 561, Total: 1000, Low: 0.5301, High: 0.5915},
		{Attack: "cw"},
	})
	want := `| attack | accuracy | 95% interval | right | images | worst class | accuracy there |
| :-- | --: | --: | --: | --: | :-- | --: |
| clean | 84.30 | 81.92 to 86.42 | 843 | 1000 | cat | 67.00 |
| worst case eps 8/255 | 56.10 | 53.01 to 59.15 | 561 | 1000 | - | - |
| cw eps 8/255 | - | - | 0 | 0 | - | - |

1000 images of cifar10 test; Linf perturbations, eps 8/255. Accuracies in percent with 95% Wilson intervals.

Checkpoint: last epoch.
`
	if got := text(t, table.Markdown); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTablesFitTheTerminalAndKeepTheirNumbers(t *testing.T) {
	table := &Table{Columns: []Column{{"model", Left}, {"a number with a long name", Right}, {"notes", Left}},
		Notes: []string{strings.Repeat("words and ", 40)}}
	table.Add(strings.Repeat("longname", 9), "123456789.12", strings.Repeat("é", 60))
	table.Add("", "-1", "")
	got := text(t, table.Text)
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > TerminalWidth {
			t.Errorf("a line has %d characters: %s", n, line)
		}
		if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
			t.Errorf("a line ends in spaces: %q", line)
		}
	}
	if !strings.Contains(got, "123456789.12") || !strings.Contains(got, "…") {
		t.Errorf("the number was cut, or nothing was:\n%s", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a row of one cell was added to three columns")
		}
	}()
	table.Add("alone")
}

func TestMarkdownAndCSVKeepSpecialCharacters(t *testing.T) {
	table := &Table{Title: "a|b", Columns: []Column{{"x|y", Left}, {"n", Right}}}
	cells := []string{`a "quoted, b|c\` + "\nnext", "1,5"}
	table.Add(cells...)
	if want, got := "**a\\|b**\n\n| x\\|y | n |\n| :-- | --: |\n| a \"quoted, b\\|c\\\\ next | 1,5 |\n", text(t, table.Markdown); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	records, err := csv.NewReader(strings.NewReader(text(t, table.CSV))).ReadAll()
	if want := [][]string{{"x|y", "n"}, cells}; err != nil || !reflect.DeepEqual(records, want) {
		t.Errorf("CSV came back as %q (%v), want %q", records, err, want)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", -7: "-7", 999: "999", 1000: "1.00k", 9994: "9.99k", 9996: "10.0k", 19_858: "19.9k", 99_949: "99.9k", 99_960: "100k",
		272_474: "272k", 999_499: "999k", 999_500: "1.00M", 11_173_962: "11.2M", 5_240_000_000: "5.24G", math.MaxInt64: "9.22E", -12_345: "-12.3k",
	} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0ms", 85_400 * time.Nanosecond: "85µs", 1_318 * time.Microsecond: "1.32ms", 9_996 * time.Microsecond: "10ms", 340 * time.Millisecond: "340ms", 999499 * time.Microsecond: "999ms", 999500 * time.Microsecond: "1.0s",
		12345 * time.Millisecond: "12.3s", 59949 * time.Millisecond: "59.9s", 59950 * time.Millisecond: "1m00s", 185 * time.Second: "3m05s",
		3599400 * time.Millisecond: "59m59s", 3599500 * time.Millisecond: "1h00m", 3723 * time.Second: "1h02m", 52 * time.Hour: "2d04h", -90 * time.Second: "-1m30s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%s) is %q, want %q", d, got, want)
		}
	}
	if got := Percent(0.5423); got != "54.23" {
		t.Errorf("Percent(0.5423) is %q", got)
	}
}
