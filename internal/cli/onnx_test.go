package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/weights"
)

// A run goes out as ONNX and in int8, both are attacked in one table, and the ONNX file teaches a student.
func TestONNXOutAndIn(t *testing.T) {
	dir := t.TempDir()
	run, float, int8 := filepath.Join(dir, "run"), filepath.Join(dir, "float.onnx"), filepath.Join(dir, "int8.onnx")
	for _, args := range [][]string{
		tiny("pgd-at", run),
		{"export", run, "--format", "onnx", "--out", float},
		{"export", run, "--format", "onnx", "--int8", "--samples", "20", "--out", int8},
		tiny("adaad", filepath.Join(dir, "student"), "--teacher", float),
	} {
		if _, err := adaad(t, t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	out, err := adaad(t, t.Context(), "evaluate", "--model", float, "--int8", int8, "--samples", "20", "--attacks", "clean,pgd-2")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"float.onnx", "int8.onnx", "20 images of shapes test"} {
		if !strings.Contains(out, want) {
			t.Errorf("evaluate does not say %q:\n%s", want, out)
		}
	}
	card, err := weights.LoadCard(int8)
	if err != nil {
		t.Fatal(err)
	}
	if card.Model != "resnet8-w4" || card.Data != "shapes" || len(card.Accuracies) != 0 {
		t.Errorf("the card in int8 is %+v, expected the run's without its accuracies, which are of other values", card)
	}
	for want, args := range map[string][]string{
		"written in no other format":   {"export", float, "--out", filepath.Join(dir, "x.safetensors")},
		"need --format onnx":           {"export", run, "--int8", "--out", filepath.Join(dir, "x.safetensors")},
		"--keep-batch-norm forbids":    {"export", run, "--format", "onnx", "--int8", "--keep-batch-norm", "--out", filepath.Join(dir, "x.onnx")},
		"expected a name that ends in": {"export", run, "--format", "onnx", "--out", filepath.Join(dir, "x.bin")},
		"there is no model file":       {"evaluate", "--model", filepath.Join(dir, "none.onnx")},
	} {
		if _, err := adaad(t, t.Context(), args...); ExitCode(err) != ExitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: exit code %d, expected %d and an error that says %q: %v", args, ExitCode(err), ExitUsage, want, err)
		}
	}
}
