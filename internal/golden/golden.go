// Package golden finds and reads the golden values computed by PyTorch, and rebuilds the weights and inputs they were
// computed from, so that tests can compare. Its generator is the one of the goldens' README.
package golden

import (
	"encoding/json"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/gomlx/core/tensors"
)

// U is the generator u(name, n) of the README: n doubles in [-1, 1), splitmix64's output function over
// fnv1a64(name) + i, the top 53 bits of each.
func U(name string, n int) []float64 {
	hash := fnv.New64a()
	hash.Write([]byte(name))
	start := hash.Sum64()
	values := make([]float64, n)
	for i := range values {
		z := start + uint64(i) + 0x9E3779B97F4A7C15
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		values[i] = float64(z>>11)*(2.0/(1<<53)) - 1
	}
	return values
}

// State fills a network's parameters by the README's table: prefix names the network, gain is 6 unless the golden
// file says otherwise. The tensors are float32, in the order of net.Params().
func State(net classifier.Network, prefix string, gain float64) []*tensors.Tensor {
	var state []*tensors.Tensor
	for _, p := range net.Params() {
		values := U(prefix+p.Name, p.Size())
		fanIn := 1
		for _, d := range p.Shape[1:] {
			fanIn *= d
		}
		offset, scale := 0.0, 0.1
		switch p.Kind {
		case classifier.ConvWeight:
			scale = math.Sqrt(gain / float64(fanIn))
		case classifier.LinearWeight:
			scale = 0.5 * math.Sqrt(gain/float64(fanIn))
		case classifier.NormWeight:
			offset, scale = 1, 0.2
		case classifier.RunningVar:
			offset, scale = 1, 0.4
		}
		flat := make([]float32, len(values))
		for i, v := range values {
			flat[i] = float32(offset + scale*v)
		}
		state = append(state, tensors.FromFlatDataAndDimensions(flat, p.Shape...))
	}
	return state
}

// Model is net with the values of State and the default gain.
func Model(t testing.TB, net classifier.Network, prefix string) *classifier.Model {
	t.Helper()
	m, err := classifier.NewModel(net, State(net, prefix, 6))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// NHWC reorders values laid out N,C,H,W into a float32 tensor laid out N,H,W,C.
func NHWC[T float32 | float64](values []T, n, c, h, w int) *tensors.Tensor {
	flat := make([]float32, len(values))
	for i := range n {
		for ch := range c {
			for p := range h * w {
				flat[(i*h*w+p)*c+ch] = float32(values[(i*c+ch)*h*w+p])
			}
		}
	}
	return tensors.FromFlatDataAndDimensions(flat, n, h, w, c)
}

// Path is the path of a golden file: in the folder ADAAD_GOLDEN, else in ../shared/golden beside the repository. The
// test is skipped where that folder is absent, and fails where ADAAD_GOLDEN is set but the file is not there.
func Path(t testing.TB, name string) string {
	t.Helper()
	dir, named := os.LookupEnv("ADAAD_GOLDEN")
	if !named {
		dir = filepath.Join(root(t), "..", "shared", "golden")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		if named {
			t.Fatalf("ADAAD_GOLDEN is %s, but: %v", dir, err)
		}
		t.Skipf("no golden values (%v); set ADAAD_GOLDEN to their folder", err)
	}
	return path
}

// root is the folder of go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = parent
	}
}

// JSON reads a golden JSON file into v.
func JSON(t testing.TB, name string, v any) {
	t.Helper()
	path := Path(t, name)
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// Arch is an arch_NAME.json: what PyTorch computed for one architecture on Images.
type Arch struct {
	Architecture string
	Model        string // the command line's name
	Classes      int
	ConvGain     float64 `json:"conv_gain"`
	StateDict    []struct {
		Name  string
		Shape []int
	} `json:"state_dict"`
	Parameters            int
	EvalLogits            [][]float64          `json:"eval_logits"`
	EvalLoss              float64              `json:"eval_loss"`
	EvalInputGradL2       float64              `json:"eval_input_grad_l2"`
	EvalInputGradFirst32  []float64            `json:"eval_input_grad_first32"` // in N,C,H,W order
	TrainLogits           [][]float64          `json:"train_logits"`
	TrainLoss             float64              `json:"train_loss"`
	TrainParamGradL2      map[string]float64   `json:"train_param_grad_l2"`
	TrainRunningMeanAfter map[string][]float64 `json:"train_running_mean_after"` // the first four of each
}

// Architectures are the names of the arch files.
func Architectures() []string {
	return []string{"resnet20", "resnet18", "mobilenet_v2", "wrn_16_2_trades", "wrn_16_2_ltd", "wrn_16_2_ltd_sub_block1"}
}

// ReadArch reads arch_NAME.json.
func ReadArch(t testing.TB, name string) Arch {
	t.Helper()
	arch := Arch{Classes: 10, ConvGain: 6}
	JSON(t, "arch_"+name+".json", &arch)
	return arch
}

// ArchImages are the two 32x32 colour images of the arch files, [2,32,32,3], and their labels.
func ArchImages() (images *tensors.Tensor, labels []int32) {
	values := U("x", 2*3*32*32)
	for i, v := range values {
		values[i] = 0.5 + 0.5*v
	}
	return NHWC(values, 2, 3, 32, 32), []int32{3, 7}
}

// Near reports values that differ from want by more than tolerance times the largest magnitude in want.
func Near[T float32 | float64](t testing.TB, what string, got []T, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	var scale float64
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for i, w := range want {
		if diff := math.Abs(float64(got[i]) - w); !(diff <= tolerance*scale) {
			t.Errorf("%s[%d] = %.9g, want %.9g (off by %.2g of the largest)", what, i, got[i], w, diff/scale)
			return
		}
	}
}
