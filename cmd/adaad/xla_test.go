//go:build xla

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/internal/cli"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/gomlx/core/tensors"
)

// plugin is the backend to test and how many devices it has: ADAAD_TEST_XLA names another than xla:cpu, such as xla:cuda.
// Without its plugin the tests are skipped.
func plugin(t *testing.T) (name string, devices int) {
	if name = os.Getenv("ADAAD_TEST_XLA"); name == "" {
		name = "xla:cpu"
	}
	b, err := open(name, 0, 1)
	switch {
	case err != nil && os.Getenv("ADAAD_REQUIRE_XLA") != "":
		t.Fatalf("%s cannot be opened: %v", name, err)
	case err != nil:
		t.Skipf("%s cannot be opened: %v", name, err)
	}
	defer b.Finalize()
	t.Log(b.Description())
	return name, b.NumDevices()
}

func adaad(t *testing.T, args ...string) string {
	t.Helper()
	var out, progress bytes.Buffer
	err := cli.Run(context.Background(), args, cli.Env{Stdout: &out, Stderr: &progress, Backends: backends, Open: open, Version: "test"})
	if err != nil {
		t.Fatalf("adaad %v: %v\n%s", args, err, progress.String())
	}
	return out.String()
}

// Trainings and an evaluation come out on XLA as they do on vec: losses, weights and answers. All devices there are share the
// batches. On a GPU products in TF32 are rounded to 11 bits, and a search follows signs, so that its numbers are further off.
func TestXLAFollowsVec(t *testing.T) {
	name, devices := plugin(t)
	near := 1e-3 // a sign in the search can hang on a rounding
	if strings.HasPrefix(name, "xla:cuda") {
		near = 3e-2
	}
	dir := t.TempDir()
	train1 := func(backend, run, method string, more ...string) string {
		out := filepath.Join(dir, filepath.Base(backend[:3])+"-"+run)
		adaad(t, append([]string{"train", "--recipe", method + "-shapes-resnet8", "--model", "resnet8-w4", "--train-samples", "32", "--epochs", "1",
			"--batch-size", "16", "--set", "validation_samples=10", "--set", "validation_steps=1", "--set", "search.steps=2", "--set", "augment=true",
			"--out", out, "--backend", backend}, more...)...)
		return out
	}
	shared := []string{"--devices", strconv.Itoa(devices)}
	teachers := func(n int) (flags []string) {
		for range n {
			flags = append(flags, "--teacher", filepath.Join(dir, "vec-teacher"))
		}
		return flags
	}
	for _, c := range []struct {
		run, method string
		more        []string
	}{
		{"teacher", "pgd-at", nil},
		{"student", "adaad", append(teachers(1), "--set", "ema=0.5")},
		{"trades", "trades", []string{"--set", "awp=0.005", "--set", "clip=1", "--set", "search.batch_norm=train"}},
		{"mobile", "natural", []string{"--model", "mobilenet-v2", "--set", "validation_steps=0", "--set", "search.steps=0"}},
		{"rslad", "rslad", teachers(1)},
		{"adaiad", "adaiad", teachers(1)},
		{"igdm", "igdm", teachers(1)},
		{"saad", "saad", teachers(1)},
		{"mtard", "mtard", teachers(2)},
		{"fair", "fair-ard", teachers(1)},
		{"score", "score", nil},
		{"ccat", "ccat", nil},
		{"bf16", "adaad", append(teachers(1), "--precision", "bf16")},
	} {
		near := near
		if c.run == "bf16" { // where and whether a number is rounded is the backend's to choose
			near = 3e-2
		}
		want, got := train1("vec", c.run, c.method, c.more...), train1(name, c.run, c.method, append(c.more, shared...)...)
		a, b := lastLine(t, want), lastLine(t, got)
		t.Logf("%s: loss %.6f on vec, %.6f on %s", c.run, a.Loss, b.Loss, name)
		if off := math.Abs(a.Loss/b.Loss - 1); !(off < near) {
			t.Errorf("%s: the loss is %g on vec and %g on %s", c.run, a.Loss, b.Loss, name)
		}
		wa, errA := weights.Load(want)
		wb, errB := weights.Load(got)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		for i, p := range wa.Params() {
			var off, size float64
			va, vb := tensors.MustCopyFlatData[float32](wa.State[i]), tensors.MustCopyFlatData[float32](wb.State[i])
			for k := range va {
				off, size = off+math.Pow(float64(va[k]-vb[k]), 2), size+math.Pow(float64(va[k]), 2)
			}
			// A weight that begins at 0 is all step, and a step's sign can hang on a rounding.
			if off = math.Sqrt(off / (size + 1e-6)); !(off < 10*near) {
				t.Errorf("%s: %s is off by %g of its length", c.run, p.Name, off)
			}
		}
	}
	var rows [2][]byte
	for i, backend := range []string{"vec", name} {
		record := filepath.Join(dir, "record.jsonl")
		flags := []string{"evaluate", "--model", filepath.Join(dir, "vec-student"), "--samples", "12", "--attacks", "clean,pgd-2", "--json", record, "--backend", backend}
		if i > 0 {
			flags = append(flags, shared...)
		}
		adaad(t, flags...)
		text, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(text, []byte("\n"))[1:] { // the first line names the backend
			var row struct{ Index, Prediction int }
			if len(line) > 0 && json.Unmarshal(line, &row) == nil {
				answer, _ := json.Marshal(row)
				rows[i] = append(rows[i], answer...)
			}
		}
		if err := os.Remove(record); err != nil {
			t.Fatal(err)
		}
	}
	if len(rows[0]) == 0 || !bytes.Equal(rows[0], rows[1]) {
		t.Errorf("the answers are\n%s\non vec and\n%s\non %s", rows[0], rows[1], name)
	}
}

func lastLine(t *testing.T, run string) train.Line {
	t.Helper()
	lines, err := train.ReadLog(run)
	if err != nil || len(lines) == 0 {
		t.Fatalf("%s: %d lines, %v", run, len(lines), err)
	}
	return lines[len(lines)-1]
}
