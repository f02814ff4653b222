package onnx

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/gomlx/core/tensors"
)

// The version of the operators that Export uses, and the version of the format that goes with it.
const (
	exportOpset = 17
	exportIR    = 8
)

// The names of a file's input and output: images [batch, channels, height, width] in [0,1], and logits [batch, classes].
const (
	Images = "images"
	Logits = "logits"
)

// Options are what Export can do in more than one way.
type Options struct {
	// KeepBatchNorm writes batch norms as nodes of their own; without it each is folded into the convolution before it,
	// if it has one.
	KeepBatchNorm bool
	// Metadata goes into metadata_props.
	Metadata map[string]string
	// Version is the program's.
	Version string
}

// Export makes an ONNX file of a network of the zoo, in eval mode.
func Export(m *classifier.Model, o Options) (*File, error) {
	e, err := newExporter(m, o)
	if err != nil {
		return nil, err
	}
	e.write()
	return e.file, nil
}

// exporter writes a network layer by layer.
type exporter struct {
	model  *classifier.Model
	layers []zoo.Layer
	params map[string][]float32
	keep   bool // batch norms
	file   *File
	names  []string // of the values: the images, then each layer's result
	grids  []*grid  // the integers that a value is quantised to; nil for one that stays in float32
}

func (e *exporter) write() {
	e.quantized(0)
	for i, l := range e.layers {
		e.layer(i, l)
		e.quantized(i + 1)
	}
}

func newExporter(m *classifier.Model, o Options) (*exporter, error) {
	layers := zoo.Layers(m.Network)
	if layers == nil {
		return nil, fmt.Errorf("%s is no network of the zoo, the only ones that are written as ONNX", m.Name())
	}
	h, w, c := m.Input()
	e := &exporter{model: m, layers: layers, params: map[string][]float32{}, keep: o.KeepBatchNorm, names: []string{Images},
		grids: make([]*grid, len(layers)+1)}
	for i, p := range m.Params() {
		values, err := tensors.CopyFlatData[float32](m.State[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		e.params[p.Name] = values
	}
	batch := func(dims ...int) ([]int, []string) {
		return append([]int{-1}, dims...), append([]string{"batch"}, make([]string, len(dims))...)
	}
	in, out := Value{Name: Images, Type: Float32}, Value{Name: Logits, Type: Float32}
	in.Dims, in.Axes = batch(c, h, w)
	out.Dims, out.Axes = batch(m.Classes())
	e.file = &File{
		IR: exportIR, Producer: "adaad", ProducerVersion: o.Version, Opsets: []Opset{{Version: exportOpset}},
		Graph: Graph{Name: m.Name(), Inputs: []Value{in}, Outputs: []Value{out}},
	}
	for _, key := range slices.Sorted(maps.Keys(o.Metadata)) {
		e.file.Metadata = append(e.file.Metadata, Entry{key, o.Metadata[key]})
	}
	used := map[string]bool{Images: true, Logits: true}
	for i, l := range layers {
		name := l.Name
		if name == "" {
			name = e.names[l.Inputs[0]] + "." + strings.ToLower(onnxOps[l.Op])
		}
		for base, n := name, 2; used[name]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		if used[name] = true; i == len(layers)-1 {
			name = Logits
		}
		e.names = append(e.names, name)
	}
	return e, nil
}

// onnxOps are what layers are called; most are the operators that compute them.
var onnxOps = map[zoo.Op]string{zoo.Conv: "Conv", zoo.Norm: "BatchNormalization", zoo.Linear: "Gemm", zoo.ReLU: "Relu", zoo.Sum: "Add",
	zoo.Swish: "Swish", zoo.GlobalMean: "GlobalAveragePool", zoo.MaxPool2: "MaxPool", zoo.Flatten: "Flatten", zoo.Normalise: "Normalised"}

// layer writes the i-th layer.
func (e *exporter) layer(i int, l zoo.Layer) {
	var inputs []string
	for _, at := range l.Inputs {
		inputs = append(inputs, e.read(at))
	}
	out := e.names[i+1]
	switch l.Op {
	case zoo.Conv:
		normed := e.keep && l.Norm != ""
		weight, bias := e.params[l.Weight], e.params[l.Bias]
		target := out
		if normed {
			target = out + ".conv"
		} else if l.Norm != "" {
			weight, bias = e.fold(l)
		}
		e.node("Conv", target, append(inputs, e.weights(l, weight, bias)...), e.convAttributes(l)...)
		if normed {
			e.norm(out, target, l)
		}
	case zoo.Norm:
		e.norm(out, inputs[0], l)
	case zoo.Linear:
		e.node("Gemm", out, append(inputs, e.weights(l, e.params[l.Weight], e.params[l.Bias])...), ints("transB", 1))
	case zoo.Swish:
		e.node("Sigmoid", out+".sigmoid", inputs)
		e.node("Mul", out, append(inputs, out+".sigmoid"))
	case zoo.Normalise:
		e.node("Sub", out+".centred", append(inputs, e.floats(l.Mean, e.params[l.Mean], l.Channels, 1, 1)))
		e.node("Div", out, []string{out + ".centred", e.floats(l.Std, e.params[l.Std], l.Channels, 1, 1)})
	case zoo.GlobalMean:
		e.node("GlobalAveragePool", out+".pool", inputs)
		e.node("Flatten", out, []string{out + ".pool"})
	case zoo.MaxPool2:
		e.node("MaxPool", out, inputs, list("kernel_shape", 2, 2), list("strides", 2, 2))
	default:
		e.node(onnxOps[l.Op], out, inputs)
	}
}

// weights writes a layer's weight and its bias, if it has one.
func (e *exporter) weights(l zoo.Layer, weight, bias []float32) []string {
	if g := e.grids[l.Inputs[0]]; g != nil {
		return e.integers(l, *g, weight, bias)
	}
	names := []string{e.floats(l.Name+".weight", weight, e.shape(l.Weight)...)}
	if bias != nil {
		names = append(names, e.floats(l.Name+".bias", bias, l.Channels))
	}
	return names
}

// fold returns the convolution of a layer that has its batch norm in it: w·γ/√(σ²+ε), β - μ·γ/√(σ²+ε).
func (e *exporter) fold(l zoo.Layer) (weight, bias []float32) {
	gamma, beta := e.params[l.Norm+".weight"], e.params[l.Norm+".bias"]
	mean, variance := e.params[l.Norm+".running_mean"], e.params[l.Norm+".running_var"]
	weight, bias = slices.Clone(e.params[l.Weight]), make([]float32, l.Channels)
	each := len(weight) / l.Channels
	for c := range l.Channels {
		scale := float64(gamma[c]) / math.Sqrt(float64(variance[c])+zoo.NormEpsilon)
		for i := c * each; i < (c+1)*each; i++ {
			weight[i] = float32(float64(weight[i]) * scale)
		}
		bias[c] = float32(float64(beta[c]) - float64(mean[c])*scale)
	}
	return weight, bias
}

func (e *exporter) convAttributes(l zoo.Layer) []Attribute {
	k, s, before, after := int64(l.Kernel), int64(l.Stride), int64(l.Before), int64(l.After)
	attributes := []Attribute{list("kernel_shape", k, k), list("strides", s, s), list("pads", before, before, after, after)}
	if l.Depthwise {
		attributes = append(attributes, ints("group", int64(l.Channels)))
	}
	return attributes
}

// norm writes the batch norm of a layer.
func (e *exporter) norm(out, in string, l zoo.Layer) {
	inputs := []string{in}
	for _, p := range []string{".weight", ".bias", ".running_mean", ".running_var"} {
		inputs = append(inputs, e.floats(l.Norm+p, e.params[l.Norm+p], l.Channels))
	}
	e.node("BatchNormalization", out, inputs, Attribute{Name: "epsilon", Kind: FloatAttribute, Float: zoo.NormEpsilon})
}

// node writes a node under its result's name.
func (e *exporter) node(op, out string, inputs []string, attributes ...Attribute) {
	g := &e.file.Graph
	g.Nodes = append(g.Nodes, Node{Name: out, Op: op, Inputs: inputs, Outputs: []string{out}, Attributes: attributes})
}

// constant writes a tensor and returns its name.
func (e *exporter) constant(t Tensor) string {
	e.file.Graph.Initializers = append(e.file.Graph.Initializers, t)
	return t.Name
}

func (e *exporter) floats(name string, values []float32, dims ...int) string {
	return e.constant(*floatTensor(name, values, dims...))
}

// shape is a parameter's.
func (e *exporter) shape(param string) []int {
	params := e.model.Params()
	return params[slices.IndexFunc(params, func(p classifier.Param) bool { return p.Name == param })].Shape
}

func ints(name string, v int64) Attribute { return Attribute{Name: name, Kind: IntAttribute, Int: v} }

func list(name string, v ...int64) Attribute {
	return Attribute{Name: name, Kind: IntsAttribute, Ints: v}
}
