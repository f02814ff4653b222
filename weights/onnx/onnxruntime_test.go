package onnx_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/weights/onnx"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

var backend compute.Backend

func TestMain(m *testing.M) {
	var err error
	if backend, err = vec.New(""); err != nil {
		panic(err)
	}
	m.Run()
}

// onnxruntime is the folder of npm's onnxruntime-node, which ADAAD_ONNXRUNTIME names.
func onnxruntime(t *testing.T) string {
	t.Helper()
	dir, named := os.LookupEnv("ADAAD_ONNXRUNTIME")
	if !named {
		t.Skip("ADAAD_ONNXRUNTIME does not name the folder of onnxruntime-node: nothing is compared with ONNX Runtime")
	}
	if _, err := os.Stat(filepath.Join(dir, "package.json")); err != nil {
		t.Fatalf("ADAAD_ONNXRUNTIME: %v", err)
	}
	return dir
}

// theirs are ONNX Runtime's logits for images [N,C,H,W].
func theirs(t *testing.T, module, model string, pixels []float32, input [3]int) []float32 {
	t.Helper()
	var raw bytes.Buffer
	if err := binary.Write(&raw, binary.LittleEndian, pixels); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(t.TempDir(), "images")
	if err := os.WriteFile(images, raw.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	h, w, c := input[0], input[1], input[2]
	args := []string{filepath.Join("testdata", "logits.cjs"), module, model, images}
	for _, d := range []int{len(pixels) / (h * w * c), c, h, w} {
		args = append(args, fmt.Sprint(d))
	}
	command := exec.Command("node", args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("ONNX Runtime: %v: %s", err, stderr.String())
	}
	logits := make([]float32, len(out)/4)
	for i := range logits {
		logits[i] = math.Float32frombits(binary.LittleEndian.Uint32(out[4*i:]))
	}
	return logits
}

// ours are the network's logits here for the same images.
func ours(t *testing.T, m *classifier.Model, pixels []float32) []float32 {
	t.Helper()
	const batch = 100
	exec, err := NewExec(backend, func(nodes []*Node) *Node {
		last := len(nodes) - 1
		return classifier.Bind(m.Network, nodes[:last]).Logits(nodes[last], classifier.Eval)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	h, w, c := m.Input()
	var logits []float32
	for images := range slices.Chunk(pixels, batch*h*w*c) {
		args := make([]any, 0, len(m.State)+1)
		for _, s := range m.State {
			args = append(args, s)
		}
		out, err := exec.Call(append(args, golden.NHWC(images, len(images)/(h*w*c), c, h, w))...)
		if err != nil {
			t.Fatal(err)
		}
		logits = append(logits, tensors.MustCopyFlatData[float32](out[0])...)
	}
	return logits
}

// cifar are the first n test images of CIFAR-10, [n,3,32,32].
func cifar(t *testing.T, n int) []float32 {
	t.Helper()
	pixels, _ := golden.CIFARTest(t, n)
	narrow := make([]float32, len(pixels))
	for i, v := range pixels {
		narrow[i] = float32(v)
	}
	return narrow
}

func model(t testing.TB, name string, input [3]int) *classifier.Model {
	t.Helper()
	net, err := zoo.New(name, 10, input)
	if err != nil {
		t.Fatal(err)
	}
	m := golden.Model(t, net, name+".")
	for i, p := range net.Params() {
		if p.Kind == classifier.InputStd {
			m.State[i] = tensors.FromValue([]float32{0.2, 0.25, 0.3})
		}
	}
	return m
}

func save(t testing.TB, f *onnx.File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, f.Marshal(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// differ holds logits to the others' by their largest magnitude and returns how many predictions differ.
func differ(t *testing.T, what string, got, want []float32, tolerance float64) int {
	t.Helper()
	if len(got) != len(want) || len(got) == 0 {
		t.Fatalf("%s: %d logits, expected %d", what, len(got), len(want))
	}
	near(t, what+": logits", got, want, tolerance)
	n := 0
	for i := 0; i < len(got); i += 10 {
		if argmax(got[i:i+10]) != argmax(want[i:i+10]) {
			n++
		}
	}
	t.Logf("%s: %d of %d predictions differ", what, n, len(got)/10)
	return n
}

func argmax(v []float32) int { return slices.Index(v, slices.Max(v)) }

// Every family of networks computes the same in ONNX Runtime as here, with batch norms folded and kept.
func TestONNXRuntimeComputesTheSame(t *testing.T) {
	module := onnxruntime(t)
	for _, c := range families {
		m := model(t, c.name, c.input)
		h, w, channels := m.Input()
		pixels := random("images", 8*h*w*channels)
		want := ours(t, m, pixels)
		for _, keep := range []bool{false, true} {
			f, err := onnx.Export(m, onnx.Options{KeepBatchNorm: keep})
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%s, batch norms kept %v", c.name, keep)
			if n := differ(t, what, theirs(t, module, save(t, f), pixels, c.input), want, 1e-4); n > 0 {
				t.Errorf("%s: %d of 8 predictions differ", what, n)
			}
		}
	}
}

// A student gives the same logits and the same predictions in ONNX Runtime on 1,000 images of CIFAR-10.
func TestONNXRuntimeOnCIFAR10(t *testing.T) {
	module := onnxruntime(t)
	pixels := cifar(t, 1000)
	m := model(t, "resnet20", [3]int{32, 32, 3})
	f, err := onnx.Export(m, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := differ(t, "resnet20", theirs(t, module, save(t, f), pixels, [3]int{32, 32, 3}), ours(t, m, pixels), 1e-4); n > 0 {
		t.Errorf("%d of 1000 predictions differ", n)
	}
}
