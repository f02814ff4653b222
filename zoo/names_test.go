package zoo_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Sizes that the papers and others' counters report.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		params    int
		macs      float64 // millions
		tolerance float64
	}{
		{"resnet20", 272474, 40.8, 0.01},
		{"resnet18", 11173962, 556, 0.002},
		{"wrn-34-10-ltd", 46160474, 6660, 0.01},
		{"mobilenet-v2", 2296922, 94.6, 0.05},
	} {
		net := mustNew(t, c.name, 10, [3]int{32, 32, 3})
		if got := classifier.Count(net); got != c.params {
			t.Errorf("%s has %d parameters, want %d", c.name, got, c.params)
		}
		if got := float64(zoo.MACs(net)) / 1e6; math.Abs(got/c.macs-1) > c.tolerance {
			t.Errorf("%s has %.4g million multiply-adds, want %.4g", c.name, got, c.macs)
		}
	}
}

// By hand: a 3x3 stem, three blocks of width 1, 2, 4 with two projections, a linear layer, on 8x8 grey images.
func TestMACsOfOneSmallNetwork(t *testing.T) {
	want := int64(8*8*9*1*1 + // stem
		2*8*8*9*1*1 + // layer1
		4*4*9*(1*2+2*2) + 4*4*1*2 + // layer2
		2*2*9*(2*4+4*4) + 2*2*2*4 + // layer3
		4*5) // linear
	if got := zoo.MACs(mustNew(t, "resnet8-w1", 5, [3]int{8, 8, 1})); got != want {
		t.Errorf("%d multiply-adds, want %d", got, want)
	}
}

// An unused sub-block is in the checkpoint and costs nothing.
func TestUnusedSubBlock(t *testing.T) {
	with, without := mustNew(t, "wrn-10-1", 10, [3]int{32, 32, 3}), mustNew(t, "wrn-10-1-ltd", 10, [3]int{32, 32, 3})
	if zoo.MACs(with) != zoo.MACs(without) {
		t.Errorf("%d multiply-adds with sub_block1, %d without", zoo.MACs(with), zoo.MACs(without))
	}
	if len(with.Params()) <= len(without.Params()) {
		t.Error("sub_block1 has no parameters")
	}
}

func TestList(t *testing.T) {
	for _, e := range zoo.List() {
		net := mustNew(t, e.Name, 10, e.Input)
		if e.Params != classifier.Count(net) || e.MACs != zoo.MACs(net) || e.Source == "" || net.Name() != e.Name {
			t.Errorf("%+v", e)
		}
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	colour := [3]int{32, 32, 3}
	for _, c := range []struct {
		name    string
		classes int
		input   [3]int
		want    string
	}{
		{"resnet-18", 10, colour, "resnet18"},
		{"moblienet-v2", 10, colour, "mobilenet-v2"},
		{"", 10, colour, "expected one of"},
		{"resnet21", 10, colour, "6n+2"},
		{"resnet2", 10, colour, "6n+2"},
		{"resnet50", 10, colour, "bottleneck"},
		{"resnet20-w0", 10, colour, "width 0"},
		{"wrn-33-10", 10, colour, "6n+4"},
		{"wrn-4-10", 10, colour, "6n+4"},
		{"wrn-28-0", 10, colour, "widening 0"},
		{"wrn-28-0-dm", 10, colour, "widening 0"},
		{"resnet21-normalised", 10, colour, "6n+2"},
		{"resnet20-normalised-normalised", 10, colour, "unknown model"},
		{"resnet20", 1, colour, "1 classes"},
		{"resnet20", 10, [3]int{0, 32, 3}, "0x32x3"},
		{"small-cnn", 10, [3]int{12, 12, 1}, "too small"},
		{"small-cnn-w0", 10, [3]int{28, 28, 1}, "width 0"},
	} {
		if _, err := zoo.New(c.name, c.classes, c.input); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %d classes, %v: error %v does not say %q", c.name, c.classes, c.input, err, c.want)
		}
	}
}

func TestInit(t *testing.T) {
	net := mustNew(t, "resnet8-w32", 10, [3]int{16, 16, 3})
	a, b, other := zoo.Init(net, 1), zoo.Init(net, 1), zoo.Init(net, 2)
	if _, err := classifier.NewModel(net, a.State); err != nil {
		t.Fatal(err)
	}
	for i, p := range net.Params() {
		values := tensors.MustCopyFlatData[float32](a.State[i])
		if !slices.Equal(values, tensors.MustCopyFlatData[float32](b.State[i])) {
			t.Errorf("%s differs between two models of one seed", p.Name)
		}
		var sum, squares, largest float64
		for _, v := range values {
			sum, squares, largest = sum+float64(v), squares+float64(v)*float64(v), max(largest, math.Abs(float64(v)))
		}
		n := float64(len(values))
		switch p.Kind {
		case classifier.ConvWeight:
			if slices.Equal(values, tensors.MustCopyFlatData[float32](other.State[i])) {
				t.Errorf("%s does not depend on the seed", p.Name)
			}
			// The standard error of a variance of n normal values is its √(2/n).
			want := 2 / float64(p.Shape[0]*p.Shape[2]*p.Shape[3])
			if math.Abs(squares/n/want-1) > 5*math.Sqrt(2/n) {
				t.Errorf("%s has variance %g, want %g", p.Name, squares/n, want)
			}
		case classifier.LinearWeight, classifier.Bias:
			if limit := 1 / math.Sqrt(128); largest > limit || largest < limit/2 {
				t.Errorf("%s reaches %g, want up to %g", p.Name, largest, limit)
			}
		case classifier.NormWeight, classifier.RunningVar:
			if sum != n || squares != n {
				t.Errorf("%s is not 1", p.Name)
			}
		default:
			if squares != 0 {
				t.Errorf("%s is not 0", p.Name)
			}
		}
	}
}

// Every family runs on images of other sizes, and in eval mode no image sees another.
func TestImagesAreIndependentInEvalMode(t *testing.T) {
	for _, c := range []struct {
		name  string
		input [3]int
	}{
		{"resnet8-w2", [3]int{9, 7, 1}},
		{"resnet18-w2", [3]int{8, 8, 3}},
		{"wrn-10-1", [3]int{8, 8, 3}},
		{"wrn-10-1-dm", [3]int{8, 8, 3}},
		{"resnet8-w2-normalised", [3]int{8, 8, 3}},
		{"preact-resnet18-wong", [3]int{8, 8, 3}},
		{"mobilenet-v2", [3]int{8, 8, 3}},
		{"preact-resnet18", [3]int{8, 8, 3}},
		{"small-cnn", [3]int{17, 16, 2}},
	} {
		net := mustNew(t, c.name, 4, c.input)
		model := zoo.Init(net, 3)
		size := c.input[0] * c.input[1] * c.input[2]
		pixels := make([]float32, 2*size)
		for i := range pixels {
			pixels[i] = float32(i*i%255) / 255
		}
		logits := func(pixels []float32) []float64 {
			images := tensors.FromFlatDataAndDimensions(pixels, len(pixels)/size, c.input[0], c.input[1], c.input[2])
			return call(t, func(nodes []*Node) []*Node {
				last := len(nodes) - 1
				return []*Node{classifier.Bind(net, nodes[:last]).Logits(nodes[last], classifier.Eval)}
			}, append(slices.Clone(model.State), images))[0]
		}
		both, second := logits(pixels), logits(pixels[size:])
		if len(both) != 8 || !slices.Equal(both[4:], second) {
			t.Errorf("%s: logits %v in a batch, %v alone", c.name, both, second)
		}
	}
}

func TestWrongImagesAreRefused(t *testing.T) {
	net := mustNew(t, "resnet8-w1", 4, [3]int{8, 8, 3})
	exec, err := NewExec(backend, func(nodes []*Node) []*Node {
		last := len(nodes) - 1
		return []*Node{classifier.Bind(net, nodes[:last]).Logits(nodes[last], classifier.Eval)}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	var args []any
	for _, s := range zoo.Init(net, 1).State {
		args = append(args, s)
	}
	_, err = exec.Call(append(args, tensors.FromFlatDataAndDimensions(make([]float32, 4*4*3), 1, 4, 4, 3))...)
	if err == nil || !strings.Contains(err.Error(), "[N,8,8,3]") {
		t.Errorf("images of another size: %v", err)
	}
}
