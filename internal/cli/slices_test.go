package cli

import (
	"crypto/sha256"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/train"
)

func hashOf(t *testing.T, run string) [32]byte {
	t.Helper()
	model, err := os.ReadFile(filepath.Join(run, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(model)
}

// A run cut into slices of a moment each gives the model of one that was never cut, bit for bit, and every slice but the
// last ends well and says how to go on.
func TestTrainInSlices(t *testing.T) {
	dir := t.TempDir()
	whole, cut := filepath.Join(dir, "whole"), filepath.Join(dir, "cut")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", whole, "--set", "ema=0.9")...); err != nil {
		t.Fatal(err)
	}
	const moment = "0.01" // minutes
	args := tiny("pgd-at", cut, "--set", "ema=0.9", "--minutes", moment)
	slices := 0
	for ; ; slices++ {
		out, err := adaad(t, t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "next: adaad evaluate") {
			break
		}
		if want := "its minutes are over; go on with: adaad train --resume --out " + cut; !strings.Contains(out, want) {
			t.Fatalf("a slice ends with\n%s\nwant %q", out, want)
		}
		if _, err := os.Stat(filepath.Join(cut, "model.safetensors")); err == nil {
			t.Fatal("there is a model before the run is over")
		}
		args = []string{"train", "--resume", "--out", cut, "--minutes", moment}
		if slices >= 2 { // long enough that a slow machine gets to the end
			args[len(args)-1] = "10"
		}
	}
	t.Logf("%d slices", slices+1)
	if hashOf(t, whole) != hashOf(t, cut) {
		t.Error("the models differ")
	}
	if _, err := adaad(t, t.Context(), tiny("pgd-at", filepath.Join(dir, "x"), "--minutes", "-1")...); ExitCode(err) != ExitUsage {
		t.Errorf("--minutes -1: %v", err)
	}
}

// Training in bfloat16 follows training in float32, is another run, and can be evaluated in either.
func TestTrainInBFloat16(t *testing.T) {
	dir := t.TempDir()
	loss := map[string]float64{}
	for _, precision := range []string{"fp32", "bf16"} {
		run := filepath.Join(dir, precision)
		if _, err := adaad(t, t.Context(), tiny("pgd-at", run, "--precision", precision)...); err != nil {
			t.Fatal(err)
		}
		lines, err := train.ReadLog(run)
		if err != nil {
			t.Fatal(err)
		}
		loss[precision] = lines[len(lines)-1].Loss
		out, err := adaad(t, t.Context(), "evaluate", "--model", run, "--samples", "20", "--attacks", "clean,pgd-2", "--precision", precision)
		if err != nil || !strings.Contains(out, "20 images") {
			t.Errorf("evaluating in %s: %v\n%s", precision, err, out)
		}
	}
	if hashOf(t, filepath.Join(dir, "fp32")) == hashOf(t, filepath.Join(dir, "bf16")) {
		t.Error("both precisions gave the same model")
	}
	if off := math.Abs(loss["bf16"]/loss["fp32"] - 1); !(off < 0.05) {
		t.Errorf("the loss of the last epoch is %g in bf16 and %g in fp32", loss["bf16"], loss["fp32"])
	}
	for _, args := range [][]string{
		tiny("pgd-at", filepath.Join(dir, "x"), "--precision", "fp8"),
		{"evaluate", "--model", filepath.Join(dir, "fp32"), "--precision", "fp8"},
	} {
		if _, err := adaad(t, t.Context(), args...); ExitCode(err) != ExitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
}
