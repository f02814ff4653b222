package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/weights"
)

// Record is run.json.
type Record struct {
	Settings       any               `json:"settings,omitempty"` // as the caller gave them
	Training       map[string]any    `json:"training"`           // what the loop was told
	Seed           uint64            `json:"seed"`
	Versions       map[string]string `json:"versions"`
	InstructionSet string            `json:"instruction_set,omitempty"`
	Choice         string            `json:"choice"` // how the checkpoint is chosen
	Chosen         *Chosen           `json:"chosen,omitempty"`
	Seconds        float64           `json:"seconds"` // spent so far, over all stops
	Complete       bool              `json:"complete"`
}

// ReadRecord reads the run.json of a run folder.
func ReadRecord(dir string) (*Record, error) {
	path := filepath.Join(dir, RunFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Record)
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // a seed of 64 bits has no float64
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%s is not a run's record: %w", path, err)
	}
	return r, nil
}

func (r *Record) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", RunFile, err)
	}
	return weights.WriteFile(filepath.Join(dir, RunFile), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// SettingsDiffer names the first setting in which what is asked for now is not what the run was started with, or is nil.
func (r *Record) SettingsDiffer(settings any) error {
	type asked struct {
		Settings any `json:"settings"`
	}
	return differ(asked{settings}, asked{r.Settings})
}

// differs is SettingsDiffer with all else that decides a run.
func (r *Record) differs(old *Record) error {
	type decisive struct {
		Settings any            `json:"settings"`
		Training map[string]any `json:"training"`
		Seed     uint64         `json:"seed"`
	}
	return differ(decisive{r.Settings, r.Training, r.Seed}, decisive{old.Settings, old.Training, old.Seed})
}

// differ names the first leaf in which what is asked for and what a run was started with are not the same.
func differ(asked, started any) error {
	now, err := Flatten(asked)
	if err != nil {
		return err
	}
	was, err := Flatten(started)
	if err != nil {
		return err
	}
	all := maps.Clone(now)
	maps.Copy(all, was)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a, b := was[name], now[name]
		if a == b {
			continue
		}
		for _, v := range []*string{&a, &b} {
			if *v == "" {
				*v = "unset"
			}
		}
		return fmt.Errorf("%s is %s, but the run was started with %s; a run can only be resumed as it was started", name, b, a)
	}
	return nil
}

// Flatten turns a value into its JSON leaves by path, such as settings.search.epsilon.
func Flatten(v any) (map[string]string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("the settings cannot be written as JSON: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	leaves := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, child := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), child)
			}
		case []any:
			for i, child := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), child)
			}
		case nil:
		default:
			leaf, _ := json.Marshal(v)
			leaves[path] = string(leaf)
		}
	}
	walk("", tree)
	return leaves, nil
}

// versions are those of Go, this module and the modules that decide numbers.
func versions() map[string]string {
	v := map[string]string{"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	info, known := debug.ReadBuildInfo()
	if !known {
		return v
	}
	for _, m := range append(info.Deps, &info.Main) {
		if strings.HasPrefix(m.Path, "github.com/adaad-go/") || strings.HasPrefix(m.Path, "github.com/gomlx/") {
			v[m.Path] = m.Version
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v["commit"] = s.Value
		}
	}
	return v
}

// Line is one line of log.jsonl.
type Line struct {
	Event           string  `json:"event"` // "steps" inside an epoch, "epoch" at its end
	Epoch           int     `json:"epoch"` // counted from 1
	Step            int     `json:"step"`  // updates made since the run began
	Loss            float64 `json:"loss"`  // mean over the steps since the last line, or over the epoch
	Accuracy        float64 `json:"accuracy"`
	GradNorm        float64 `json:"grad_norm,omitempty"` // of the last step
	LR              float64 `json:"lr"`                  // of the last step
	ImagesPerSecond float64 `json:"images_per_second"`
	CompileSeconds  float64 `json:"compile_seconds,omitempty"` // spent compiling since the line before
	*Score                  // of the epoch's validation
	Best            bool    `json:"best,omitempty"`
	Seconds         float64 `json:"seconds"` // since the run began, over all stops
}

// ReadLog reads the log of a run folder. A last line that is not whole, because it is being written, is left out.
func ReadLog(dir string) ([]Line, error) {
	path := filepath.Join(dir, LogFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []Line
	for r := bufio.NewReader(f); ; {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		var l Line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, len(lines)+1, err)
		}
		lines = append(lines, l)
	}
}

// logFile is a log.jsonl open for appending.
type logFile struct {
	f    *os.File
	size int64
}

// openLog opens the log and cuts off what was written after the checkpoint it is resumed from.
func openLog(dir string, size int64) (*logFile, error) {
	path := filepath.Join(dir, LogFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end < size {
		err = fmt.Errorf("%s has %d bytes, but had %d when the checkpoint was written; put the whole file back to resume", path, end, size)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{f, size}, nil
}

func (l *logFile) write(line Line) error {
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("%s: %w", l.f.Name(), err)
	}
	n, err := l.f.Write(append(text, '\n'))
	l.size += int64(n)
	return err
}

// sweep removes what a killed writer left half written.
func sweep(dir string) {
	stale := []string{filepath.Join(dir, Last+".new")}
	for _, name := range []string{Last, Best, RunFile, strings.TrimSuffix(Final, ".safetensors")} {
		found, _ := filepath.Glob(filepath.Join(dir, "."+name+".*"))
		stale = append(stale, found...)
	}
	for _, path := range stale {
		os.Remove(path)
	}
}
