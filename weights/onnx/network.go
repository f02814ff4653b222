package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Read reads a file, and the data that it keeps in files beside it.
func Read(path string) (*File, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(raw)
	if err == nil {
		err = f.readExternal(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// readExternal fetches the tensors whose data is in files of the model's folder. No more is read of a file than it has.
func (f *File) readExternal(dir string) error {
	left := map[string]int64{}
	for i := range f.Graph.Initializers {
		t := &f.Graph.Initializers[i]
		if t.external == nil {
			continue
		}
		location := filepath.FromSlash(t.external["location"])
		if !filepath.IsLocal(location) || filepath.Clean(location) != location {
			return fmt.Errorf("tensor %q keeps its data in %q, expected a file of the model's folder, without .. and not absolute", t.Name, t.external["location"])
		}
		offset := int64(0)
		if text, has := t.external["offset"]; has {
			var err error
			if offset, err = strconv.ParseInt(text, 10, 64); err != nil || offset < 0 {
				return fmt.Errorf("tensor %q: external data starts at offset %q, expected a number of bytes", t.Name, text)
			}
		}
		if err := t.readFrom(dir, location, offset, left); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// readFrom reads a tensor's data from a file; left is how much may still be read of each.
func (t *Tensor) readFrom(dir, location string, offset int64, left map[string]int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	file, err := root.Open(location)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if _, seen := left[location]; !seen {
		left[location] = info.Size()
	}
	size := int64(t.size()) * int64(widths[t.Type])
	if left[location] -= size; left[location] < 0 || offset > info.Size()-size {
		return fmt.Errorf("%d bytes from offset %d do not fit into what %s has beside the other tensors, which is %d bytes in all", size, offset, location, info.Size())
	}
	t.Data = make([]byte, size)
	_, err = file.ReadAt(t.Data, offset)
	if errors.Is(err, io.EOF) {
		err = nil // at the very end
	}
	t.external = nil
	return err
}

func (t *Tensor) size() int {
	n := 1
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// floats are the values of a tensor of floating-point numbers.
func (t *Tensor) floats() []float32 {
	out := make([]float32, t.size())
	for i := range out {
		b := t.Data[i*widths[t.Type]:]
		switch t.Type {
		case Float32:
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		case Float64:
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case Float16:
			out[i] = float16.FromBits(binary.LittleEndian.Uint16(b)).Float32()
		case BFloat16:
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
		}
	}
	return out
}

func (t Type) isFloat() bool { return t == Float32 || t == Float64 || t == Float16 || t == BFloat16 }

// integers are the values of a tensor of integers or truth values.
func (t *Tensor) integers() []int64 {
	out := make([]int64, t.size())
	for i := range out {
		b := t.Data[i*widths[t.Type]:]
		switch t.Type {
		case Int8:
			out[i] = int64(int8(b[0]))
		case Uint8, Bool:
			out[i] = int64(b[0])
		case Int16:
			out[i] = int64(int16(binary.LittleEndian.Uint16(b)))
		case Uint16:
			out[i] = int64(binary.LittleEndian.Uint16(b))
		case Int32:
			out[i] = int64(int32(binary.LittleEndian.Uint32(b)))
		case Uint32:
			out[i] = int64(binary.LittleEndian.Uint32(b))
		default:
			out[i] = int64(binary.LittleEndian.Uint64(b))
		}
	}
	return out
}

// network is a classifier that was read from a file.
type network struct {
	name      string
	input     Value
	output    string
	classes   int
	opset     int64
	nodes     []Node // those that the logits need, in order
	constants map[string]*Tensor
	params    []classifier.Param
}

func (n *network) Name() string { return n.name }
func (n *network) Input() (height, width, channels int) {
	d := n.input.Dims
	return d[2], d[3], d[1]
}
func (n *network) Classes() int               { return n.classes }
func (n *network) Params() []classifier.Param { return n.params }

// The versions of ONNX's operators that are read: from the first with today's broadcasting to the newest whose changes
// were looked at.
const minOpset, maxOpset = 7, 23

// Model makes a model of a file that holds a feed-forward image classifier: one input [batch, channels, height, width] of
// float32, images in [0,1], and one output [batch, classes], the logits. Its constants are the model's parameters. It can
// be differentiated and attacked, and is always in eval mode: it cannot be trained.
//
// QuantizeLinear rounds as ONNX says. Its gradient is the straight-through estimate (Bengio, Léonard and Courville 2013,
// section 4): that of the identity inside the range of the integers, and 0 outside.
func (f *File) Model(name string) (*classifier.Model, error) {
	n := &network{name: name, opset: f.opset(), constants: map[string]*Tensor{}}
	if n.opset < minOpset || n.opset > maxOpset {
		return nil, fmt.Errorf("the file uses version %d of ONNX's operators, expected %d to %d", n.opset, minOpset, maxOpset)
	}
	for i := range f.Graph.Initializers {
		t := &f.Graph.Initializers[i]
		if _, twice := n.constants[t.Name]; twice {
			return nil, fmt.Errorf("there are two tensors named %q", t.Name)
		}
		n.constants[t.Name] = t
	}
	if err := n.readInterface(&f.Graph); err != nil {
		return nil, err
	}
	if err := n.readNodes(f.Graph.Nodes); err != nil {
		return nil, err
	}
	state, err := n.readParams()
	if err != nil {
		return nil, err
	}
	return classifier.NewModel(n, state)
}

// readInterface checks that the graph takes images and gives logits.
func (n *network) readInterface(g *Graph) error {
	var inputs []Value
	for _, v := range g.Inputs {
		if n.constants[v.Name] == nil { // old files list constants as inputs too
			inputs = append(inputs, v)
		}
	}
	names := func(values []Value) string {
		var all []string
		for _, v := range values {
			all = append(all, v.Name)
		}
		return strings.Join(all, ", ")
	}
	if len(inputs) != 1 || len(g.Outputs) != 1 {
		return fmt.Errorf("the graph has %d inputs (%s) and %d outputs (%s), expected the images alone and the logits alone",
			len(inputs), names(inputs), len(g.Outputs), names(g.Outputs))
	}
	in, out := inputs[0], g.Outputs[0]
	switch {
	case in.Type != Float32 || out.Type != Float32:
		return fmt.Errorf("input %q holds %s and output %q %s, expected float", in.Name, in.Type, out.Name, out.Type)
	case len(in.Dims) != 4 || slices.Min(in.Dims[1:]) < 1 || slices.Max(in.Dims[1:]) > maxSide:
		return fmt.Errorf("input %q has dimensions %v, expected [batch, channels, height, width] with all but the batch fixed", in.Name, in.Dims)
	case len(out.Dims) != 2 || out.Dims[1] < 2:
		return fmt.Errorf("output %q has dimensions %v, expected [batch, classes] with at least 2 classes", out.Name, out.Dims)
	case in.Dims[0] >= 0:
		return fmt.Errorf("input %q takes batches of %d images and of no other size: export the model with a dynamic batch axis", in.Name, in.Dims[0])
	}
	n.input, n.output, n.classes = in, out.Name, out.Dims[1]
	return nil
}

// maxSide bounds the sides and channels of images.
const maxSide = 1 << 14

// describe names a node in errors.
func (n *Node) describe() string {
	name := n.Name
	if name == "" && len(n.Outputs) > 0 {
		name = n.Outputs[0]
	}
	return fmt.Sprintf("node %q (%s)", name, n.Op)
}

// readNodes keeps the nodes that the logits need and checks that each is known and can be computed after those before it.
func (n *network) readNodes(nodes []Node) error {
	given := map[string]bool{n.input.Name: true}
	for name := range n.constants {
		given[name] = true
	}
	for i := range nodes {
		node := &nodes[i]
		for _, name := range node.Inputs {
			if name != "" && !given[name] {
				return fmt.Errorf("%s reads %q, which nothing before it gives", node.describe(), name)
			}
		}
		for _, name := range node.Outputs {
			if name != "" && given[name] {
				return fmt.Errorf("%s gives %q, which is there already", node.describe(), name)
			}
			given[name] = true
		}
	}
	if !given[n.output] {
		return fmt.Errorf("no node gives the output %q", n.output)
	}
	needed := map[string]bool{n.output: true}
	for _, node := range slices.Backward(nodes) {
		if !slices.ContainsFunc(node.Outputs, func(name string) bool { return name != "" && needed[name] }) {
			continue
		}
		for _, name := range node.Inputs {
			needed[name] = true
		}
		n.nodes = append(n.nodes, node)
	}
	slices.Reverse(n.nodes)
	return n.fold()
}

// fold checks the nodes and turns those whose results the file states, Constant and DequantizeLinear of a constant, into
// constants.
func (n *network) fold() error {
	var left []Node
	for _, node := range n.nodes {
		t, err := n.constantOf(&node)
		if err != nil {
			return fmt.Errorf("%s: %w", node.describe(), err)
		}
		if t == nil {
			left = append(left, node)
			continue
		}
		n.constants[node.Outputs[0]] = t
	}
	n.nodes = left
	read := map[string]bool{}
	for _, node := range left {
		for _, name := range node.Inputs {
			read[name] = true
		}
	}
	maps.DeleteFunc(n.constants, func(name string, _ *Tensor) bool { return !read[name] })
	return nil
}

// constantOf checks a node; if what it gives is a constant, it returns that.
func (n *network) constantOf(node *Node) (*Tensor, error) {
	if node.Op == "Constant" && node.Domain == "" {
		if len(node.Attributes) != 1 || len(node.Outputs) != 1 {
			return nil, fmt.Errorf("%d attributes and %d outputs, expected 1 of each", len(node.Attributes), len(node.Outputs))
		}
		switch a := node.Attributes[0]; {
		case a.Kind == TensorAttribute && a.Tensor != nil:
			return a.Tensor, nil
		case a.Kind == FloatAttribute:
			return floatTensor("", []float32{a.Float}), nil
		case a.Kind == FloatsAttribute:
			return floatTensor("", a.Floats, len(a.Floats)), nil
		case a.Kind == IntAttribute:
			return intTensor([]int64{a.Int}), nil
		case a.Kind == IntsAttribute:
			return intTensor(a.Ints, len(a.Ints)), nil
		default:
			return nil, fmt.Errorf("its value is attribute %q, expected numbers", a.Name)
		}
	}
	if err := checkNode(node); err != nil {
		return nil, err
	}
	if node.Op == "DequantizeLinear" && n.constants[node.Inputs[0]] != nil {
		return n.dequantized(node)
	}
	return nil, nil
}

// dequantized is (q - zero point)·scale for constants, whole or along an axis.
func (n *network) dequantized(node *Node) (*Tensor, error) {
	q, scale := n.constants[node.Inputs[0]], n.constants[node.Inputs[1]]
	if scale == nil || !scale.Type.isFloat() || q.Type.isFloat() {
		return nil, fmt.Errorf("it scales a constant, expected integers and a constant scale")
	}
	if err := errors.Join(q.complete(), scale.complete()); err != nil {
		return nil, err
	}
	scales, zeros, values := scale.floats(), make([]int64, scale.size()), q.integers()
	if len(node.Inputs) > 2 && node.Inputs[2] != "" {
		zero := n.constants[node.Inputs[2]]
		if zero == nil || zero.Type != q.Type || zero.size() != scale.size() || zero.complete() != nil {
			return nil, fmt.Errorf("zero point %q does not fit: expected as many constants of %s as there are scales", node.Inputs[2], q.Type)
		}
		zeros = zero.integers()
	}
	each := max(q.size(), 1) // so many values share a scale
	if len(scale.Dims) > 0 && scale.size() != 1 {
		axis := int64(1)
		for _, a := range node.Attributes {
			if a.Name == "axis" {
				axis = a.Int
			}
		}
		if axis < 0 {
			axis += int64(len(q.Dims))
		}
		if axis < 0 || axis >= int64(len(q.Dims)) || len(scale.Dims) != 1 || q.Dims[axis] != scale.Dims[0] {
			return nil, fmt.Errorf("scales %v along axis %d do not fit %v", scale.Dims, axis, q.Dims)
		}
		each = 1
		for _, d := range q.Dims[axis+1:] {
			each *= max(d, 1)
		}
	}
	out := make([]float32, len(values))
	for i, v := range values {
		at := i / each % len(scales)
		out[i] = float32(v-zeros[at]) * scales[at]
	}
	return floatTensor("", out, q.Dims...), nil
}

// complete says what is missing of a tensor.
func (t *Tensor) complete() error {
	if t.external != nil {
		return fmt.Errorf("tensor %q keeps its data in the file %q, which was not read", t.Name, t.external["location"])
	}
	return nil
}

func floatTensor(name string, values []float32, dims ...int) *Tensor {
	t := &Tensor{Name: name, Type: Float32, Dims: dims, Data: make([]byte, 0, 4*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func intTensor(values []int64, dims ...int) *Tensor {
	t := &Tensor{Type: Int64, Dims: dims}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(v))
	}
	return t
}

// readParams makes parameters of the floating-point constants, in the order in which nodes read them.
func (n *network) readParams() ([]*tensors.Tensor, error) {
	var state []*tensors.Tensor
	seen := map[string]bool{}
	for _, node := range n.nodes {
		for i, name := range node.Inputs {
			t := n.constants[name]
			if t == nil || seen[name] {
				continue
			}
			seen[name] = true
			if err := t.complete(); err != nil {
				return nil, err
			}
			if !t.Type.isFloat() {
				continue
			}
			if t.size() == 0 {
				return nil, fmt.Errorf("tensor %q has dimensions %v, expected some values", name, t.Dims)
			}
			values := t.floats()
			for k, v := range values {
				if d := v - v; d != 0 {
					return nil, fmt.Errorf("tensor %q is %v at index %d, expected finite values", name, v, k)
				}
			}
			n.params = append(n.params, classifier.Param{Name: name, Shape: slices.Clone(t.Dims), Kind: kindOf(node.Op, i, t)})
			state = append(state, tensors.FromFlatDataAndDimensions(values, t.Dims...))
		}
	}
	return state, nil
}

// kindOf is what a constant is for, by who reads it.
func kindOf(op string, input int, t *Tensor) classifier.Kind {
	switch {
	case op == "Conv" && input == 1 && len(t.Dims) == 4:
		return classifier.ConvWeight
	case (op == "Gemm" || op == "MatMul") && len(t.Dims) == 2:
		return classifier.LinearWeight
	case op == "BatchNormalization" && input >= 1 && input <= 4:
		return [...]classifier.Kind{classifier.NormWeight, classifier.NormBias, classifier.RunningMean, classifier.RunningVar}[input-1]
	}
	return classifier.Bias
}

// Forward computes node by node. It panics with an error that names the node, as graph functions do.
func (n *network) Forward(b *classifier.Bound, x *graph.Node) *graph.Node {
	if b.Mode() != classifier.Eval {
		panic(fmt.Errorf("%s was read from an ONNX file and is frozen: it cannot be trained", n.name))
	}
	h, w, c := n.Input()
	if d := x.Shape().Dimensions; len(d) != 4 || d[1] != h || d[2] != w || d[3] != c {
		panic(fmt.Errorf("%s takes images [N,%d,%d,%d], got %s", n.name, h, w, c, x.Shape()))
	}
	values := map[string]value{n.input.Name: {node: x, image: true}}
	for name, t := range n.constants {
		if !t.Type.isFloat() && t.external == nil {
			values[name] = value{ints: t.integers(), dims: t.Dims}
		}
	}
	for _, p := range n.params {
		values[p.Name] = value{node: b.Param(p.Name)}
	}
	for i := range n.nodes {
		n.compute(&n.nodes[i], values, x.Graph())
	}
	logits := values[n.output].plain()
	if d := logits.Shape().Dimensions; len(d) != 2 || d[0] != x.Shape().Dimensions[0] || d[1] != n.classes {
		panic(fmt.Errorf("%s gives logits of dimensions %v for %d images, expected [%d,%d] as the file says",
			n.name, d, x.Shape().Dimensions[0], x.Shape().Dimensions[0], n.classes))
	}
	return logits
}

// compute adds one node to the graph.
func (n *network) compute(node *Node, values map[string]value, g *graph.Graph) {
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Errorf("%s: %s: %v", n.name, node.describe(), r))
		}
	}()
	c := &call{net: n, node: node, graph: g}
	for _, name := range node.Inputs {
		c.inputs = append(c.inputs, values[name])
	}
	for i, v := range operators[node.Op].compute(c) {
		if i < len(node.Outputs) {
			values[node.Outputs[i]] = v
		}
	}
}

// Load reads a model from a file and names it after the file.
func Load(path string) (*classifier.Model, error) {
	f, err := Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no model file %s: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	m, err := f.Model(filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Operators names the operators that are read.
func Operators() []string { return slices.Sorted(maps.Keys(operators)) }
