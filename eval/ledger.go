package eval

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/adaad-go/adaad/data"
)

// ledgerFormat changes whenever an older program could misread a ledger.
const ledgerFormat = 1

// Header is the first line of a ledger: everything that its rows depend on. The batch size is not in it, as they do
// not depend on that.
type Header struct {
	Format    int               `json:"ledger"`
	Model     string            `json:"model"`
	Weights   string            `json:"weights_sha256,omitempty"` // of the parameters' names and values, whatever file held them
	Selection string            `json:"selection,omitempty"`
	Precision string            `json:"precision,omitempty"` // of convolutions and matrix products, where it is not float32
	Data      string            `json:"data"`
	Classes   []string          `json:"classes"`
	Images    int               `json:"images"`
	Pixels    string            `json:"images_sha256"` // of the images' indices, labels and pixels
	Norm      string            `json:"norm"`
	Epsilon   float64           `json:"eps"`
	Seed      uint64            `json:"seed"`
	Attacks   []AttackHeader    `json:"attacks"`
	Until     float64           `json:"until,omitempty"`
	Backend   string            `json:"backend,omitempty"`
	Versions  map[string]string `json:"versions"`
}

// AttackHeader is a suite: its name, all its settings and, where it has several attacks, their names in order.
type AttackHeader struct {
	Name     string   `json:"name"`
	Settings string   `json:"settings"`
	Stages   []string `json:"stages,omitempty"`
}

// Row is what is known of one image. A prediction is the class of the highest logit, the first of several, or -1 where
// a logit is not finite; a margin is z_y - max_{i≠y} z_i.
type Row struct {
	Index      int       `json:"index"` // in the original split
	Label      int       `json:"label"`
	Prediction int       `json:"prediction"`          // for the clean image
	Margin     float32   `json:"margin"`              // of the clean image
	Attacks    []Outcome `json:"attacks,omitempty"`   // one per suite; none where the clean image is wrong already
	BrokenBy   string    `json:"broken_by,omitempty"` // the first attack that broke it, "clean" where it needed none
	Seed       uint64    `json:"seed"`
}

// Outcome is what a suite did to one image: the attack that broke it or, where none did, the one that came closest.
type Outcome struct {
	Suite      string  `json:"suite"`
	Attack     string  `json:"attack"`
	Broken     bool    `json:"broken"`
	Prediction int     `json:"prediction"`
	Margin     float32 `json:"margin"`
	Norm       float32 `json:"norm"` // of the perturbation, in the evaluation's norm
	Step       int     `json:"step"` // gradients and forward passes that the attack had asked for when it stopped
}

// Read reads a ledger. One that is still being written, or was cut off, gives the rows that are whole.
func Read(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	header, rows, _, err := parseLedger(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if header == nil {
		return nil, fmt.Errorf("%s: expected a ledger, found no whole line", path)
	}
	return &Result{Header: *header, Rows: rows}, nil
}

// Write writes the whole ledger.
func (r *Result) Write(w io.Writer) error {
	buffered := bufio.NewWriter(w)
	err := line(buffered, r.Header)
	for _, row := range r.Rows {
		err = errors.Join(err, line(buffered, row))
	}
	return errors.Join(err, buffered.Flush())
}

// parseLedger reads whole lines and says how many bytes they take. What follows the last line break was cut off while
// it was written; without a single whole line, header is nil.
func parseLedger(text []byte) (header *Header, rows []Row, size int, err error) {
	seen := map[int]int{}
	for n := 1; ; n++ {
		line, _, whole := bytes.Cut(text[size:], []byte("\n"))
		if !whole {
			return header, rows, size, nil
		}
		size += len(line) + 1
		if header == nil {
			header = &Header{}
			if err := json.Unmarshal(line, header); err != nil {
				return nil, nil, 0, fmt.Errorf("line 1: expected the header of a ledger: %w", err)
			}
			if header.Format != ledgerFormat {
				return nil, nil, 0, fmt.Errorf("line 1: ledger is format %d, expected %d", header.Format, ledgerFormat)
			}
			continue
		}
		var r Row
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, nil, 0, fmt.Errorf("line %d: expected an image's row: %w", n, err)
		}
		if err := r.validate(header); err != nil {
			return nil, nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		if old, dup := seen[r.Index]; dup {
			return nil, nil, 0, fmt.Errorf("line %d: image %d is on line %d already", n, r.Index, old)
		}
		seen[r.Index] = n
		rows = append(rows, r)
	}
}

// validate refuses a row that this package cannot have written under the header.
func (r *Row) validate(h *Header) error {
	classes := len(h.Classes)
	if r.Index < 0 {
		return fmt.Errorf("index is %d, expected at least 0", r.Index)
	}
	if r.Label < 0 || r.Label >= classes {
		return fmt.Errorf("label is %d, expected one of %d classes", r.Label, classes)
	}
	if r.Prediction < -1 || r.Prediction >= classes {
		return fmt.Errorf("prediction is %d, expected one of %d classes or -1", r.Prediction, classes)
	}
	want := len(h.Attacks)
	if r.Prediction != r.Label {
		want = 0
	}
	if len(r.Attacks) != want {
		return fmt.Errorf("attacks has %d entries, expected %d", len(r.Attacks), want)
	}
	for i, o := range r.Attacks {
		if o.Suite != h.Attacks[i].Name {
			return fmt.Errorf("suite is %q, expected %q", o.Suite, h.Attacks[i].Name)
		}
		if o.Prediction < -1 || o.Prediction >= classes {
			return fmt.Errorf("%s: prediction is %d, expected one of %d classes or -1", o.Suite, o.Prediction, classes)
		}
		if o.Broken != (o.Prediction != r.Label) {
			return fmt.Errorf("%s: broken is %t, but prediction is %d and label is %d", o.Suite, o.Broken, o.Prediction, r.Label)
		}
	}
	if by := r.breaker(); r.BrokenBy != by {
		return fmt.Errorf("broken_by is %q, expected %q", r.BrokenBy, by)
	}
	return nil
}

// breaker is the first attack that broke the image, "clean" where it needed none, "" where it stands.
func (r *Row) breaker() string {
	if r.Prediction != r.Label {
		return "clean"
	}
	for _, o := range r.Attacks {
		if o.Broken {
			return o.Attack
		}
	}
	return ""
}

// ledger is a ledger being written, or nothing where there is no file. While it grows, images are in the order in which
// they were finished; a finished ledger has them in that of the set.
type ledger struct {
	rows map[int]Row // what was in it when it was opened, by position in the set
	path string
	file *os.File
}

// openLedger begins a ledger or, with resume, goes on with one: it must have been begun with the same header, and hold
// images of the set. A line that was cut off is dropped.
func openLedger(path string, resume bool, header Header, set *data.Set) (*ledger, error) {
	if path == "" {
		return &ledger{}, nil
	}
	var old *Header
	var rows []Row
	var size int
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !resume:
		return nil, fmt.Errorf("%s exists already; resume it, remove it or name another file", path)
	default:
		if old, rows, size, err = parseLedger(text); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	l := &ledger{rows: map[int]Row{}, path: path}
	if old != nil {
		if err := l.take(*old, header, rows, set); err != nil {
			return nil, fmt.Errorf("%s cannot be resumed: %w", path, err)
		}
	}
	if l.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666); err != nil {
		return nil, err
	}
	if err = l.file.Truncate(int64(size)); err == nil {
		_, err = l.file.Seek(int64(size), io.SeekStart)
	}
	if err == nil && old == nil {
		err = line(l.file, header)
	}
	if err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// take keeps rows written under one header for an evaluation with another, or says why it cannot, naming the field.
func (l *ledger) take(old, now Header, rows []Row, set *data.Set) error {
	was, is := reflect.ValueOf(old), reflect.ValueOf(now)
	for i := range was.NumField() {
		if a, b := was.Field(i).Interface(), is.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			field, _, _ := strings.Cut(was.Type().Field(i).Tag.Get("json"), ",")
			return fmt.Errorf("its %s is %v, that of this evaluation is %v", field, a, b)
		}
	}
	positions := make(map[int]int, set.Len())
	for i, index := range set.Index {
		positions[index] = i
	}
	for i, r := range rows {
		at, ok := positions[r.Index]
		if !ok {
			return fmt.Errorf("line %d is image %d, which is not in this evaluation", i+2, r.Index)
		}
		if r.Label != set.Labels[at] {
			return fmt.Errorf("line %d is image %d of class %d, expected class %d", i+2, r.Index, r.Label, set.Labels[at])
		}
		l.rows[at] = r
	}
	return nil
}

func (l *ledger) write(r Row) error {
	if l.file == nil {
		return nil
	}
	return line(l.file, r)
}

// line hands one line to the operating system in one piece: a process killed right after has written it.
func line(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(text, '\n'))
	}
	return err
}

// finish puts the whole ledger in the place of the one that grew.
func (l *ledger) finish(r *Result) error {
	if l.file == nil {
		return nil
	}
	whole, err := os.CreateTemp(filepath.Dir(l.path), filepath.Base(l.path)+".*")
	if err != nil {
		return err
	}
	err = errors.Join(r.Write(whole), whole.Chmod(0o644), whole.Sync(), whole.Close(), l.close())
	if err == nil {
		err = os.Rename(whole.Name(), l.path)
	}
	if err != nil {
		os.Remove(whole.Name())
	}
	return err
}

// close closes the ledger. Closing twice is harmless.
func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
