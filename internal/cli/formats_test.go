package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

// fresh saves an untrained model and returns its path.
func fresh(t *testing.T, name string, classes int, card weights.Card) string {
	t.Helper()
	net, err := zoo.New(name, classes, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := weights.Save(path, zoo.Init(net, 1), card); err != nil {
		t.Fatal(err)
	}
	return path
}

// A model goes out under PyTorch's names, is recognised there, comes back, and is the same all along.
func TestExportInspectImport(t *testing.T) {
	model := fresh(t, "resnet8-w4-normalised", 10, weights.Card{Data: "shapes", Accuracies: []weights.Measured{{Attack: "clean"}}})
	dir := t.TempDir()
	out, back := filepath.Join(dir, "out.pt"), filepath.Join(dir, "back.safetensors")
	for _, args := range [][]string{
		{"export", model, "--format", "pytorch-names", "--out", out},
		{"import", out, "--out", back},
	} {
		if _, err := adaad(t, t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	var first, second struct {
		Network struct {
			Model, Normalisation string
			Classes              int
			Parameters, MACs     int64
			Mean                 []float64
		}
		Findings []weights.Finding
	}
	for path, to := range map[string]any{out: &first, back: &second} {
		text, err := adaad(t, t.Context(), "inspect", path, "--json", "-")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if n := first.Network; n.Model != "resnet8-w4-normalised" || n.Classes != 10 || n.Normalisation != "mu and sigma in the file" || len(n.Mean) != 3 {
		t.Errorf("the export is %+v", n)
	}
	first.Network.Normalisation, second.Network.Normalisation = "", ""
	if a, b := first.Network, second.Network; a.Model != b.Model || a.Parameters != b.Parameters || a.MACs != b.MACs || a.MACs == 0 {
		t.Errorf("the export is %+v, what was imported %+v", a, b)
	}
	card, err := weights.LoadCard(back)
	if err != nil || !strings.HasPrefix(card.Source, "out.pt, PyTorch (zip), SHA-256 ") || card.Version != "test" {
		t.Errorf("the imported model's card is %+v (%v)", card, err)
	}

	half := filepath.Join(dir, "half.safetensors")
	if _, err := adaad(t, t.Context(), "export", model, "--out", half, "--dtype", "f16"); err != nil {
		t.Fatal(err)
	}
	if card, err := weights.LoadCard(half); err != nil || card.Data != "shapes" || len(card.Accuracies) != 0 {
		t.Errorf("the card of an export to F16 is %+v (%v)", card, err)
	}
}

// inspect prints what it finds, mismatches side by side.
func TestInspectMismatch(t *testing.T) {
	model := fresh(t, "resnet8-w4", 10, weights.Card{})
	text, err := adaad(t, t.Context(), "inspect", model, "--model", "resnet14-w4")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"resnet14-w4, 10 classes", "layer1.1.conv1.weight", "30 tensors are missing", "cannot be used as a resnet14-w4", "running statistics that never moved"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("inspect does not say %q:\n%s", want, text)
		}
	}
	if text, err = adaad(t, t.Context(), "inspect", model, "--data", "shapes", "--samples", "20"); err != nil || !strings.Contains(text, "of 20 images of shapes test") {
		t.Errorf("with --data: %v\n%s", err, text)
	}
}

// What is asked wrongly of inspect, import and export ends with exit code 2, a sentence, and nothing written.
func TestFormatMistakes(t *testing.T) {
	model := fresh(t, "resnet8-w4", 10, weights.Card{})
	dir := t.TempDir()
	page := filepath.Join(dir, "page.pt")
	if err := os.WriteFile(page, []byte("<!DOCTYPE html><title>quota</title>"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.safetensors")
	for _, c := range []struct {
		want string
		args []string
	}{
		{"web page", []string{"inspect", page}},
		{"web page", []string{"import", page, "--out", out}},
		{"web page", []string{"evaluate", "--model", page, "--data", "shapes"}},
		{"no model file", []string{"inspect", filepath.Join(dir, "none.pt")}},
		{"ends in .safetensors", []string{"import", model, "--out", filepath.Join(dir, "out.pt")}},
		{"ends in .safetensors", []string{"export", model, "--out", filepath.Join(dir, "out.onnx")}},
		{"ends in .pt or .pth or .safetensors", []string{"export", model, "--format", "pytorch-names", "--out", filepath.Join(dir, "out.bin")}},
		{"missing", []string{"import", model, "--model", "resnet14-w4", "--out", out}},
		{`unknown model "resnet8x"`, []string{"import", model, "--model", "resnet8x", "--out", out}},
		{"--mean has 3 values and --std 0", []string{"import", model, "--mean", "0.5,0.5,0.5", "--out", out}},
		{"no size of images", []string{"import", model, "--input", "32", "--out", out}},
		{"has no parts", []string{"import", model, "--entry", "ema", "--out", out}},
		{"holds no accuracy", []string{"evaluate", "--model", model, "--check"}},
		{"has no card", []string{"evaluate", "--model", page, "--check"}},
	} {
		if _, err := adaad(t, t.Context(), c.args...); ExitCode(err) != ExitUsage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: exit code %d with %v, expected %d and %q", c.args, ExitCode(err), err, ExitUsage, c.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v was left (%v)", left, err)
	}
}

// A run's card holds what was measured; --check finds the same, and finds a card that lies.
func TestCheckCard(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", run)...); err != nil {
		t.Fatal(err)
	}
	if _, err := adaad(t, t.Context(), "evaluate", "--model", run, "--attacks", "clean,fgsm,pgd-2", "--samples", "20", "--seed", "5"); err != nil {
		t.Fatal(err)
	}
	card, err := weights.LoadCard(run)
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]int{}
	for _, m := range card.Accuracies {
		of[m.Of]++
	}
	if of[weights.TestImages] != 3 || of[weights.HeldOutImages] != 2 {
		t.Fatalf("the card holds %+v, expected three accuracies on test images and two on held-out ones", card.Accuracies)
	}
	var checked []struct {
		Card   weights.Measured
		Now    float64
		Agrees bool
	}
	check := func() error {
		text, err := adaad(t, t.Context(), "evaluate", "--model", run, "--check", "--json", "-")
		if err := json.Unmarshal([]byte(text), &checked); err != nil {
			t.Fatal(err)
		}
		return err
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	for _, c := range checked {
		if !c.Agrees || c.Now != c.Card.Accuracy {
			t.Errorf("%+v: the same images with the same draws give another accuracy", c)
		}
	}
	if len(checked) != 5 {
		t.Errorf("%d accuracies were checked, expected 5", len(checked))
	}
	for i, m := range card.Accuracies {
		card.Accuracies[i].Accuracy = 1 - m.Accuracy/2
		if m.Accuracy > 0.9 {
			card.Accuracies[i].Accuracy = 0.1
		}
	}
	if err := weights.SaveCard(run, card); err != nil {
		t.Fatal(err)
	}
	if err := check(); ExitCode(err) != ExitFailed || !strings.Contains(err.Error(), "of 5 accuracies") {
		t.Errorf("a card that lies gives %v", err)
	}
}
