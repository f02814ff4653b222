package weights_test

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func runPython(t *testing.T, module string, args ...string) {
	t.Helper()
	if out, err := exec.Command(golden.Python(t, module), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// backend is shared, as what it has uploaded must not outlive it.
var backend = sync.OnceValue(func() compute.Backend {
	b, err := vec.New("")
	if err != nil {
		panic(err)
	}
	return b
})

// logits are a model's for images [N,H,W,C], in eval mode.
func logits(t testing.TB, m *classifier.Model, images *tensors.Tensor) []float32 {
	t.Helper()
	exec, err := NewExec(backend(), func(nodes []*Node) *Node {
		last := len(nodes) - 1
		return classifier.Bind(m.Network, nodes[:last]).Logits(nodes[last], classifier.Eval)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	args := make([]any, 0, len(m.State)+1)
	for _, s := range m.State {
		args = append(args, s)
	}
	out, err := exec.Call(append(args, images)...)
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out[0])
}

// torchCases is what checkpoints.py leaves.
type torchCases struct {
	Torch  string
	Images []float64
	Cases  []struct {
		File, Model, Hint string
		Logits            []float64
	}
}

func (c torchCases) images() *tensors.Tensor {
	return golden.NHWC(c.Images, len(c.Images)/(3*32*32), 3, 32, 32)
}

// Checkpoints that PyTorch writes, in every form, are recognised and give PyTorch's logits; what is exported for PyTorch
// loads there strictly and gives ours.
func TestAgainstPyTorch(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Python and reads ResNets")
	}
	dir := t.TempDir()
	runPython(t, "torch", "testdata/checkpoints.py", "write", dir)
	var want torchCases
	readJSON(t, filepath.Join(dir, "cases.json"), &want)
	if len(want.Cases) < 30 {
		t.Fatalf("%d cases came out of PyTorch, expected more", len(want.Cases))
	}
	images := want.images()
	models := map[string]*classifier.Model{}
	for _, c := range want.Cases {
		t.Run(c.File, func(t *testing.T) {
			f, err := weights.Open(filepath.Join(dir, c.File), "")
			if err != nil {
				t.Fatal(err)
			}
			id, err := f.Identify(weights.Hints{Model: c.Hint})
			if err != nil {
				t.Fatal(err)
			}
			if id.Network.Name() != c.Model {
				t.Errorf("it is taken for a %s, expected %s", id.Network.Name(), c.Model)
			}
			m, err := id.Model()
			if err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "logits", logits(t, m, images), c.Logits, 1e-4)
			models[c.Model] = m
		})
	}

	var exports []map[string]string
	var ours [][]float32
	for _, name := range []string{"resnet8-w8", "resnet8-w8-normalised", "wrn-16-2-dm-normalised"} {
		for _, extension := range []string{".pt", ".safetensors"} {
			m := models[name]
			if m == nil {
				t.Fatalf("no case is a %s", name)
			}
			file := "export-" + name + extension
			if err := weights.ExportPyTorch(filepath.Join(dir, file), m, "F32"); err != nil {
				t.Fatal(err)
			}
			exports = append(exports, map[string]string{"file": file, "module": name})
			ours = append(ours, logits(t, m, images))
		}
	}
	writeJSON(t, filepath.Join(dir, "exports.json"), exports)
	runPython(t, "torch", "testdata/checkpoints.py", "read", dir)
	var theirs [][]float64
	readJSON(t, filepath.Join(dir, "logits.json"), &theirs)
	for i, e := range exports {
		golden.Near(t, e["file"], ours[i], theirs[i], 1e-4)
	}
}

// The standard library of Python reads the safetensors files written here.
func TestPlainPythonReadsSafetensors(t *testing.T) {
	dir := t.TempDir()
	net, err := zoo.New("resnet8-w4-normalised", 10, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	m := zoo.Init(net, 1)
	path := filepath.Join(dir, "m.safetensors")
	if err := weights.Save(path, m, weights.Card{}); err != nil {
		t.Fatal(err)
	}
	runPython(t, "json", "testdata/plain.py", path, filepath.Join(dir, "out.json"))
	var got map[string]struct {
		Shape  []int
		Values []float64
	}
	readJSON(t, filepath.Join(dir, "out.json"), &got)
	for i, p := range m.Params() {
		values := tensors.MustCopyFlatData[float32](m.State[i])
		same := slices.EqualFunc(values, got[p.Name].Values, func(a float32, b float64) bool { return float64(a) == b })
		if !same || !slices.Equal(got[p.Name].Shape, p.Shape) {
			t.Errorf("Python reads another %s of shape %v", p.Name, got[p.Name].Shape)
		}
	}
}

// The robust ResNet-20 of the goldens loads as PyTorch wrote it, channels last, and is right as often as its file says.
func TestGoldenCheckpoint(t *testing.T) {
	m, err := weights.Load(golden.Path(t, "attack_resnet20.pt"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Clean       string      // 1 for each of the first 256 test images that is right
		Accuracy    float64     `json:"clean_accuracy_10000"`
		LogitsFirst [][]float64 `json:"clean_logits_first4"`
	}
	golden.JSON(t, "attack_resnet20.json", &want)
	n := len(want.Clean)
	if !testing.Short() {
		n = 10000
	}
	pixels, labels := golden.CIFARTest(t, n)
	var z []float32
	const image = 3 * 32 * 32
	for some := range slices.Chunk(pixels, 250*image) {
		z = append(z, logits(t, m, golden.NHWC(some, len(some)/image, 3, 32, 32))...)
	}
	golden.Near(t, "logits", z[:4*10], slices.Concat(want.LogitsFirst...), 1e-4)
	right := 0
	for i, label := range labels {
		row := z[10*i : 10*i+10]
		is := row[label] == slices.Max(row)
		if is {
			right++
		}
		if i < len(want.Clean) && is != (want.Clean[i] == '1') {
			t.Errorf("image %d: right is %t, expected %t", i, is, !is)
		}
	}
	// An image whose two largest logits are within rounding may fall on the other side.
	if got := float64(right) / float64(n); !testing.Short() && math.Abs(got-want.Accuracy) > 2/float64(n) {
		t.Errorf("%d of %d images are right, expected %.4f", right, n, want.Accuracy)
	}
	if m.Name() != "resnet20" {
		t.Errorf("it is taken for a %s", m.Name())
	}
}
