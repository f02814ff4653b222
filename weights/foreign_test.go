package weights_test

import (
	"bytes"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

// A file of the reference implementation is read whole and comes back the same from ours.
func TestFileWrittenByTheReferenceImplementation(t *testing.T) {
	f, err := weights.Read(golden.Path(t, "method_adaad.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	net, err := zoo.New("resnet8-w8", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]weights.Tensor{}
	for _, x := range f.Tensors {
		byName[x.Name] = x
	}
	if x := byName["x_adv"]; !slices.Equal(x.Shape, []int{8, 3, 32, 32}) {
		t.Errorf("x_adv has shape %v", x.Shape)
	}
	for _, p := range net.Params() {
		if !p.Kind.Trainable() {
			continue
		}
		values, err := byName["grad."+p.Name].Floats()
		if err != nil || len(values) != p.Size() {
			t.Errorf("grad.%s has %d values (%v), expected %d", p.Name, len(values), err, p.Size())
		}
	}
	path := filepath.Join(t.TempDir(), "copy.safetensors")
	if err := weights.Write(path, f); err != nil {
		t.Fatal(err)
	}
	back, err := weights.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	same := slices.EqualFunc(f.Tensors, back.Tensors, func(a, b weights.Tensor) bool {
		return a.Name == b.Name && a.DType == b.DType && slices.Equal(a.Shape, b.Shape) && bytes.Equal(a.Data, b.Data)
	})
	if !same {
		t.Error("the tensors changed on their way through Write and Read")
	}
}

// Half precision at its edges: the largest, the smallest subnormal, minus zero, infinity, NaN.
func TestHalfPrecisionEdges(t *testing.T) {
	for _, c := range []struct {
		dtype string
		bits  uint16
		want  float64
	}{
		{"F16", 0x7bff, 65504}, {"F16", 0x0001, math.Ldexp(1, -24)}, {"F16", 0x03ff, math.Ldexp(1023, -24)}, {"F16", 0xfc00, math.Inf(-1)},
		{"BF16", 0x0001, math.Ldexp(1, -133)}, {"BF16", 0xff80, math.Inf(-1)}, {"BF16", 0x4049, 3.140625},
	} {
		got, err := weights.Tensor{Name: "x", DType: c.dtype, Shape: []int{1}, Data: []byte{byte(c.bits), byte(c.bits >> 8)}}.Floats()
		if err != nil || float64(got[0]) != c.want {
			t.Errorf("%s %#04x is %v (%v), expected %v", c.dtype, c.bits, got, err, c.want)
		}
	}
	for dtype, bits := range map[string]uint16{"F16": 0x8000, "BF16": 0x8000} {
		got, err := weights.Tensor{Name: "x", DType: dtype, Shape: []int{1}, Data: []byte{byte(bits), byte(bits >> 8)}}.Floats()
		if err != nil || got[0] != 0 || !math.Signbit(float64(got[0])) {
			t.Errorf("%s minus zero is %v (%v)", dtype, got, err)
		}
	}
}

// A checkpoint of one architecture does not pass for another, whatever it is taken for.
func TestLoadAsAnotherArchitecture(t *testing.T) {
	form := func(name string) string {
		net, err := zoo.New(name, 10, [3]int{32, 32, 3})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "m.safetensors")
		if err := weights.Save(path, zoo.Init(net, 1), weights.Card{}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ltd, err := zoo.New("wrn-10-1-ltd", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := weights.LoadAs(form("wrn-10-1-ltd"), ltd); err != nil {
		t.Error(err)
	}
	if _, err := weights.LoadAs(form("wrn-10-1"), ltd); err == nil || !strings.Contains(err.Error(), "unexpected: sub_block1.layer.0.bn1.weight") {
		t.Errorf("a checkpoint with an unused sub-block: %v", err)
	}
	if _, err := weights.LoadAs(form("wrn-16-1-ltd"), ltd); err == nil || !strings.Contains(err.Error(), "unexpected: block1.layer.1.bn1.weight") {
		t.Errorf("a deeper checkpoint: %v", err)
	}
	if _, err := weights.LoadAs(form("wrn-10-2-ltd"), ltd); err == nil || !strings.Contains(err.Error(), "wrongly shaped") {
		t.Errorf("a wider checkpoint: %v", err)
	}
}
