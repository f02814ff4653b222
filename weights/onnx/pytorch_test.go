package onnx_test

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/weights/onnx"
)

// What PyTorch's exporter writes gives PyTorch's logits and PyTorch's gradients by the images.
func TestPyTorchsFiles(t *testing.T) {
	python := golden.Python(t, "torch")
	for _, opset := range []string{"12", "17"} {
		dir := t.TempDir()
		if out, err := exec.Command(python, filepath.Join("testdata", "export.py"), dir, opset).CombinedOutput(); err != nil {
			t.Fatalf("export.py: %v\n%s", err, out)
		}
		for _, name := range []string{"cnn", "vit"} {
			m, err := onnx.Load(filepath.Join(dir, name+".onnx"))
			if err != nil {
				t.Fatal(err)
			}
			read := func(what string) []float32 {
				raw, err := os.ReadFile(filepath.Join(dir, name+"."+what))
				if err != nil {
					t.Fatal(err)
				}
				values := make([]float32, len(raw)/4)
				for i := range values {
					values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
				}
				return values
			}
			logits, gradient := weightedGradients(t, m, read("images"), read("weights"))
			near(t, name+", operators of version "+opset+": logits", logits, read("logits"), 1e-5)
			near(t, name+", operators of version "+opset+": gradients", gradient, read("gradient"), 1e-4)
		}
	}
}
