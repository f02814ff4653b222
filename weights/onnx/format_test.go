package onnx_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/weights/onnx"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// graphOf is a file of a graph from x, images of 1x2 pixels and one channel, to y, two logits.
func graphOf(constants []onnx.Tensor, nodes ...onnx.Node) *onnx.File {
	return &onnx.File{IR: 8, Opsets: []onnx.Opset{{Version: 17}}, Graph: onnx.Graph{
		Nodes: nodes, Initializers: constants,
		Inputs:  []onnx.Value{{Name: "x", Type: onnx.Float32, Dims: []int{-1, 1, 1, 2}, Axes: []string{"n", "", "", ""}}},
		Outputs: []onnx.Value{{Name: "y", Type: onnx.Float32, Dims: []int{-1, 2}, Axes: []string{"n", ""}}},
	}}
}

func says(t *testing.T, want string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, expected it to say %q", err, want)
	}
}

// A file comes back as it was written.
func TestMarshalAndParse(t *testing.T) {
	f, err := onnx.Export(model(t, "resnet8-w2", [3]int{8, 8, 3}), onnx.Options{KeepBatchNorm: true, Metadata: map[string]string{"b": "2", "a": "1"}, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	raw := f.Marshal()
	back, err := onnx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Marshal(), raw) {
		t.Error("the file changed on its way through Marshal and Parse")
	}
	if !slices.Equal(back.Metadata, []onnx.Entry{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}) || back.ProducerVersion != "v1" {
		t.Errorf("metadata came back as %v of %q", back.Metadata, back.ProducerVersion)
	}
	if in := back.Graph.Inputs[0]; in.Name != onnx.Images || !slices.Equal(in.Dims, []int{-1, 3, 8, 8}) || in.Axes[0] != "batch" {
		t.Errorf("the input came back as %+v", in)
	}
}

// Truncated files and files with any bit flipped end in an error or in a network, never in a panic.
func TestDamagedFiles(t *testing.T) {
	f, err := onnx.Export(model(t, "resnet8-w1", [3]int{8, 8, 1}), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	raw := f.Marshal()
	for n := range len(raw) {
		if n%7 == 0 {
			tryFile(t, raw[:n])
		}
		broken := slices.Clone(raw)
		broken[n] ^= 1 << (n % 8)
		tryFile(t, broken)
	}
}

// tryFile reads a file and, if that goes, builds the graph that it describes.
func tryFile(t testing.TB, raw []byte) {
	f, err := onnx.Parse(raw)
	if err != nil {
		return
	}
	m, err := f.Model("fuzz")
	if err != nil {
		return
	}
	h, w, c := m.Input()
	if h*w*c > 1<<16 {
		return
	}
	defer func() {
		if r := recover(); r != nil && (strings.Contains(fmt.Sprint(r), "runtime error") || !strings.HasPrefix(fmt.Sprint(r), "fuzz")) {
			t.Errorf("panicked with %v", r)
		}
	}()
	g := graph.NewGraph(backend, "fuzz")
	defer g.Finalize()
	var nodes []*graph.Node
	for i, p := range m.Params() {
		nodes = append(nodes, graph.Parameter(g, fmt.Sprint(i), shapes.Make(dtypes.Float32, p.Shape...)))
	}
	classifier.Bind(m.Network, nodes).Logits(graph.Parameter(g, "images", shapes.Make(dtypes.Float32, 2, h, w, c)), classifier.Eval)
}

func FuzzRead(f *testing.F) {
	m := model(f, "resnet8-w1", [3]int{8, 8, 1})
	for _, keep := range []bool{false, true} {
		file, err := onnx.Export(m, onnx.Options{KeepBatchNorm: keep})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file.Marshal())
	}
	file, err := onnx.Quantize(backend, m, random("x", 8*8), onnx.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) { tryFile(t, raw) })
}

// What cannot be a classifier here is refused with what was found.
func TestRefusedFiles(t *testing.T) {
	flat := onnx.Node{Name: "flat", Op: "Flatten", Inputs: []string{"x"}, Outputs: []string{"y"}}
	for want, change := range map[string]func(f *onnx.File){
		`node "flat" (NonMaxSuppression): an operator that is not read here`: func(f *onnx.File) { f.Graph.Nodes[0].Op = "NonMaxSuppression" },
		`node "flat" (Flatten): an operator of "com.example"`:                func(f *onnx.File) { f.Graph.Nodes[0].Domain = "com.example" },
		`node "flat" (If): control flow`: func(f *onnx.File) {
			f.Graph.Nodes[0].Op, f.Graph.Nodes[0].Attributes = "If", []onnx.Attribute{{Name: "then_branch", Kind: onnx.GraphAttribute}}
		},
		`node "flat" (LSTM)`: func(f *onnx.File) { f.Graph.Nodes[0].Op = "LSTM" },
		`attribute "colour"`: func(f *onnx.File) {
			f.Graph.Nodes[0].Attributes = []onnx.Attribute{{Name: "colour", Kind: onnx.IntAttribute}}
		},
		"batches of 1 images and of no other size": func(f *onnx.File) { f.Graph.Inputs[0].Dims[0] = 1 },
		"2 inputs (x, z)": func(f *onnx.File) {
			f.Graph.Inputs = append(f.Graph.Inputs, onnx.Value{Name: "z", Type: onnx.Float32})
		},
		"2 outputs (y, z)": func(f *onnx.File) {
			f.Graph.Outputs = append(f.Graph.Outputs, onnx.Value{Name: "z", Type: onnx.Float32})
		},
		`input "x" holds uint8`:              func(f *onnx.File) { f.Graph.Inputs[0].Type = onnx.Uint8 },
		`input "x" has dimensions [-1 1 1]`:  func(f *onnx.File) { f.Graph.Inputs[0].Dims = f.Graph.Inputs[0].Dims[:3] },
		`output "y" has dimensions [-1 -1]`:  func(f *onnx.File) { f.Graph.Outputs[0].Dims[1] = -1 },
		"version 6 of ONNX's operators":      func(f *onnx.File) { f.Opsets[0].Version = 6 },
		`reads "w", which nothing before it`: func(f *onnx.File) { f.Graph.Nodes[0].Inputs[0] = "w" },
		`no node gives the output "y"`:       func(f *onnx.File) { f.Graph.Nodes = nil },
		`gives "x", which is there already`:  func(f *onnx.File) { f.Graph.Nodes[0].Outputs[0] = "x" },
	} {
		f := graphOf(nil, flat)
		f.Graph.Nodes[0].Inputs, f.Graph.Nodes[0].Outputs = []string{"x"}, []string{"y"}
		change(f)
		back, err := onnx.Parse(f.Marshal())
		if err == nil {
			_, err = back.Model("test")
		}
		says(t, want, err)
	}
	for want, raw := range map[string][]byte{
		"no ONNX model":                nil,
		"at byte 0":                    []byte("<!DOCTYPE html>"),
		"does not end within":          {0x3a, 0x7f, 0},
		"training information":         {0x08, 8, 0xa2, 0x01, 0},
		"holds string":                 tensorFile(0x10, 8),
		"has 0 bytes of data":          tensorFile(0x08, 3, 0x10, 1),
		"expected none below 0":        tensorFile(0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x10, 1),
		"fewer than 2^31 values":       tensorFile(0x08, 0xff, 0xff, 0xff, 0x07, 0x08, 0xff, 0xff, 0xff, 0x07, 0x10, 1),
		"is split into segments":       tensorFile(0x1a, 0),
		"stored as Protobuf's wire ty": tensorFile(0x12, 0),
	} {
		_, err := onnx.Parse(raw)
		says(t, want, err)
	}
}

// tensorFile is a file whose graph holds one tensor of a few bytes.
func tensorFile(tensor ...byte) []byte {
	graph := append([]byte{0x2a, byte(len(tensor))}, tensor...)
	return append([]byte{0x08, 8, 0x3a, byte(len(graph))}, graph...)
}

// Tensors may be in files beside the model, never elsewhere, and no file is read for more than it holds.
func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "weights.bin"), []byte{9, 9, 9, 9, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}, 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(location, offset string) string {
		entry := func(key, value string) []byte {
			e := slices.Concat([]byte{0x0a, byte(len(key))}, []byte(key), []byte{0x12, byte(len(value))}, []byte(value))
			return append([]byte{0x6a, byte(len(e))}, e...)
		}
		tensor := slices.Concat([]byte{0x08, 2, 0x10, 1, 0x42, 1, 'w'}, entry("location", location), entry("offset", offset), []byte{0x70, 1})
		raw := graphOf(nil, onnx.Node{Op: "Flatten", Inputs: []string{"x"}, Outputs: []string{"z"}},
			onnx.Node{Op: "Mul", Inputs: []string{"z", "w"}, Outputs: []string{"y"}}).Marshal()
		// Fields of a message may come again: the graph gets a tensor.
		at := bytes.IndexByte(raw, 0x3a)
		size := int(raw[at+1])
		if size > 100 {
			t.Fatalf("the graph has %d bytes, expected a size in one byte", size)
		}
		graph := slices.Concat(raw[at+2:at+2+size], []byte{0x2a, byte(len(tensor))}, tensor)
		raw = slices.Concat(raw[:at], []byte{0x3a, byte(len(graph)) | 0x80, byte(len(graph) >> 7)}, graph, raw[at+2+size:])
		path := filepath.Join(dir, "model.onnx")
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	m, err := onnx.Load(write("weights.bin", "4"))
	if err != nil {
		t.Fatal(err)
	}
	logits, _ := gradients(t, m, []float32{3, 5})
	near(t, "logits", logits, []float32{3, 10}, 0)
	for location, want := range map[string]string{
		"../weights.bin": "expected a file of the model's folder", "/etc/passwd": "expected a file of the model's folder",
		"a/../weights.bin": "expected a file of the model's folder", "": "expected a file of the model's folder", "none.bin": "none.bin",
	} {
		_, err := onnx.Load(write(location, "4"))
		says(t, want, err)
	}
	for _, offset := range []string{"-1", "x", "8", "99999999999"} {
		if _, err := onnx.Load(write("weights.bin", offset)); err == nil {
			t.Errorf("offset %s was accepted", offset)
		}
	}
}
