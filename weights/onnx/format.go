// Package onnx writes networks of the zoo as ONNX files, in float32 and in int8, and reads feed-forward image
// classifiers from them as differentiable networks. Nothing read from a file is executed, and memory stays within a
// fixed multiple of the file's size.
package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// File is an ONNX model: ModelProto of onnx.proto, without training information and functions, which are refused.
type File struct {
	IR              int64 // version of the format
	Producer        string
	ProducerVersion string
	Opsets          []Opset
	Graph           Graph
	Metadata        []Entry
}

// Opset is the version of a set of operators; the domain of ONNX's own is "".
type Opset struct {
	Domain  string
	Version int64
}

// Entry is a key and a value of metadata_props.
type Entry struct{ Key, Value string }

// Graph is a computation: nodes in an order in which they can be computed, and constants.
type Graph struct {
	Name            string
	Nodes           []Node
	Initializers    []Tensor
	Inputs, Outputs []Value
}

// Node is one operation.
type Node struct {
	Name, Op, Domain string
	Inputs, Outputs  []string // "" is an optional one that is left out
	Attributes       []Attribute
}

// Attribute is a setting of a node. What is set of its values is what Kind says.
type Attribute struct {
	Name   string
	Kind   AttributeKind
	Float  float32
	Int    int64
	String string
	Tensor *Tensor
	Floats []float32
	Ints   []int64
}

// AttributeKind is ONNX's AttributeType.
type AttributeKind int64

// The kinds of attributes that are read; one of any other kind keeps its number and no value.
const (
	FloatAttribute  AttributeKind = 1
	IntAttribute    AttributeKind = 2
	StringAttribute AttributeKind = 3
	TensorAttribute AttributeKind = 4
	GraphAttribute  AttributeKind = 5
	FloatsAttribute AttributeKind = 6
	IntsAttribute   AttributeKind = 7
)

// Type is ONNX's TensorProto.DataType.
type Type int64

// The types of tensors that are read.
const (
	Float32  Type = 1
	Uint8    Type = 2
	Int8     Type = 3
	Uint16   Type = 4
	Int16    Type = 5
	Int32    Type = 6
	Int64    Type = 7
	Bool     Type = 9
	Float16  Type = 10
	Float64  Type = 11
	Uint32   Type = 12
	Uint64   Type = 13
	BFloat16 Type = 16
)

var widths = map[Type]int{Float32: 4, Uint8: 1, Int8: 1, Uint16: 2, Int16: 2, Int32: 4, Int64: 8, Bool: 1, Float16: 2,
	Float64: 8, Uint32: 4, Uint64: 8, BFloat16: 2}

var typeNames = map[Type]string{Float32: "float", Uint8: "uint8", Int8: "int8", Uint16: "uint16", Int16: "int16", Int32: "int32",
	Int64: "int64", 8: "string", Bool: "bool", Float16: "float16", Float64: "double", Uint32: "uint32", Uint64: "uint64",
	BFloat16: "bfloat16"}

func (t Type) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("type %d", int64(t))
}

// Tensor is a constant: values in little-endian bytes, row-major.
type Tensor struct {
	Name string
	Type Type
	Dims []int
	Data []byte

	external map[string]string // where the data is, if it is in another file
}

// Value is the name, type and shape of an input or output of the graph. A dimension that is not fixed is -1, and has
// a name or none.
type Value struct {
	Name string
	Type Type
	Dims []int
	Axes []string // names of the dimensions, "" for those that are fixed
}

// message is a Protobuf message being written.
type message []byte

func (m *message) int(n protowire.Number, v int64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, n, protowire.VarintType), uint64(v))
}

func (m *message) text(n protowire.Number, v string) {
	if v != "" {
		*m = protowire.AppendString(protowire.AppendTag(*m, n, protowire.BytesType), v)
	}
}

func (m *message) bytes(n protowire.Number, v []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, n, protowire.BytesType), v)
}

func (m *message) in(n protowire.Number, write func(m *message)) {
	var inner message
	write(&inner)
	m.bytes(n, inner)
}

// Marshal is the file's content: the same for the same File.
func (f *File) Marshal() []byte {
	var m message
	m.int(1, f.IR)
	m.text(2, f.Producer)
	m.text(3, f.ProducerVersion)
	m.in(7, f.Graph.write)
	for _, o := range f.Opsets {
		m.in(8, func(m *message) {
			m.text(1, o.Domain)
			m.int(2, o.Version)
		})
	}
	for _, e := range f.Metadata {
		m.in(14, func(m *message) {
			m.text(1, e.Key)
			m.text(2, e.Value)
		})
	}
	return m
}

func (g *Graph) write(m *message) {
	for _, n := range g.Nodes {
		m.in(1, n.write)
	}
	m.text(2, g.Name)
	for _, t := range g.Initializers {
		m.in(5, t.write)
	}
	for _, v := range g.Inputs {
		m.in(11, v.write)
	}
	for _, v := range g.Outputs {
		m.in(12, v.write)
	}
}

func (n Node) write(m *message) {
	for _, name := range n.Inputs {
		m.bytes(1, []byte(name))
	}
	for _, name := range n.Outputs {
		m.bytes(2, []byte(name))
	}
	m.text(3, n.Name)
	m.text(4, n.Op)
	for _, a := range n.Attributes {
		m.in(5, a.write)
	}
	m.text(7, n.Domain)
}

func (a Attribute) write(m *message) {
	m.text(1, a.Name)
	switch a.Kind {
	case FloatAttribute:
		*m = protowire.AppendFixed32(protowire.AppendTag(*m, 2, protowire.Fixed32Type), math.Float32bits(a.Float))
	case IntAttribute:
		m.int(3, a.Int)
	case StringAttribute:
		m.bytes(4, []byte(a.String))
	case TensorAttribute:
		m.in(5, a.Tensor.write)
	case FloatsAttribute:
		for _, v := range a.Floats {
			*m = protowire.AppendFixed32(protowire.AppendTag(*m, 7, protowire.Fixed32Type), math.Float32bits(v))
		}
	case IntsAttribute:
		for _, v := range a.Ints {
			m.int(8, v)
		}
	}
	m.int(20, int64(a.Kind))
}

func (t Tensor) write(m *message) {
	for _, d := range t.Dims {
		m.int(1, int64(d))
	}
	m.int(2, int64(t.Type))
	m.text(8, t.Name)
	m.bytes(9, t.Data)
}

func (v Value) write(m *message) {
	m.text(1, v.Name)
	m.in(2, func(m *message) {
		m.in(1, func(m *message) {
			m.int(1, int64(v.Type))
			m.in(2, func(m *message) {
				for i, d := range v.Dims {
					m.in(1, func(m *message) {
						if d >= 0 {
							m.int(1, int64(d))
						} else {
							m.text(2, v.Axes[i])
						}
					})
				}
			})
		})
	})
}

// field is one field of a message being read.
type field struct {
	at     int // its offset in the file
	number protowire.Number
	kind   protowire.Type
	value  uint64 // of a number
	bytes  []byte // of anything with a length; they start at begin
	begin  int
}

func (f field) fail(format string, args ...any) error {
	return fmt.Errorf("at byte %d: %s", f.at, fmt.Sprintf(format, args...))
}

func (f field) expect(kind protowire.Type, what string) error {
	if f.kind != kind {
		return f.fail("%s is stored as Protobuf's wire type %d, expected %d", what, f.kind, kind)
	}
	return nil
}

// fields calls visit for each field of a message that starts at an offset of the file. Nothing recurses: groups, the one
// kind that nests without a length, are refused.
func fields(raw []byte, begin int, visit func(f field) error) error {
	for at := 0; at < len(raw); {
		f := field{at: begin + at}
		var n int
		f.number, f.kind, n = protowire.ConsumeTag(raw[at:])
		if n < 0 {
			return f.fail("no Protobuf field starts here (%v)", protowire.ParseError(n))
		}
		at += n
		switch f.kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(raw[at:])
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(raw[at:])
			f.value = uint64(v)
		case protowire.Fixed64Type:
			f.value, n = protowire.ConsumeFixed64(raw[at:])
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(raw[at:])
			f.begin = begin + at + n - len(f.bytes)
		default:
			return f.fail("field %d has Protobuf's wire type %d, which ONNX does not use", f.number, f.kind)
		}
		if n < 0 {
			return f.fail("field %d does not end within its message (%v)", f.number, protowire.ParseError(n))
		}
		at += n
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// text reads a string.
func (f field) text(to *string, what string) error {
	*to = string(f.bytes)
	return f.expect(protowire.BytesType, what)
}

// int reads an integer.
func (f field) int(to *int64, what string) error {
	*to = int64(f.value)
	return f.expect(protowire.VarintType, what)
}

// message reads a message.
func (f field) message(what string, visit func(f field) error) error {
	if err := f.expect(protowire.BytesType, what); err != nil {
		return err
	}
	return fields(f.bytes, f.begin, visit)
}

// list appends an integer, or all of a packed list.
func (f field) list(to *[]int64, what string) error {
	if f.kind != protowire.BytesType {
		*to = append(*to, int64(f.value))
		return f.expect(protowire.VarintType, what)
	}
	for raw := f.bytes; len(raw) > 0; {
		v, n := protowire.ConsumeVarint(raw)
		if n < 0 {
			return f.fail("%s is no list of integers (%v)", what, protowire.ParseError(n))
		}
		*to, raw = append(*to, int64(v)), raw[n:]
	}
	return nil
}

// fixed appends a number of so many bytes, or all of a packed list, as they are stored.
func (f field) fixed(to *[]byte, width int, what string) error {
	kind := protowire.Fixed32Type
	if width == 8 {
		kind = protowire.Fixed64Type
	}
	switch {
	case f.kind == protowire.BytesType && len(f.bytes)%width != 0:
		return f.fail("%s has %d bytes, expected a multiple of %d", what, len(f.bytes), width)
	case f.kind == protowire.BytesType:
		*to = append(*to, f.bytes...)
		return nil
	case width == 8:
		*to = binary.LittleEndian.AppendUint64(*to, f.value)
	default:
		*to = binary.LittleEndian.AppendUint32(*to, uint32(f.value))
	}
	return f.expect(kind, what)
}

// Parse reads a file's content. Tensors whose data is in another file come without it.
func Parse(raw []byte) (*File, error) {
	file := new(File)
	graphs := 0
	err := fields(raw, 0, func(f field) error {
		switch f.number {
		case 1:
			return f.int(&file.IR, "ir_version")
		case 2:
			return f.text(&file.Producer, "producer_name")
		case 3:
			return f.text(&file.ProducerVersion, "producer_version")
		case 7:
			graphs++
			return f.message("graph", file.Graph.read)
		case 8:
			var o Opset
			file.Opsets = append(file.Opsets, o)
			return f.message("opset_import", file.Opsets[len(file.Opsets)-1].read)
		case 14:
			file.Metadata = append(file.Metadata, Entry{})
			return f.message("metadata_props", file.Metadata[len(file.Metadata)-1].read)
		case 20, 25:
			return f.fail("the model holds training information or functions of its own, expected a plain graph")
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case graphs != 1 || file.IR == 0:
		return nil, fmt.Errorf("no ONNX model: ir_version is %d and there are %d graphs, expected 3 or more and 1", file.IR, graphs)
	}
	return file, nil
}

func (o *Opset) read(f field) error {
	switch f.number {
	case 1:
		err := f.text(&o.Domain, "opset_import.domain")
		if o.Domain == "ai.onnx" {
			o.Domain = ""
		}
		return err
	case 2:
		return f.int(&o.Version, "opset_import.version")
	}
	return nil
}

func (e *Entry) read(f field) error {
	switch f.number {
	case 1:
		return f.text(&e.Key, "key")
	case 2:
		return f.text(&e.Value, "value")
	}
	return nil
}

func (g *Graph) read(f field) error {
	switch f.number {
	case 1:
		g.Nodes = append(g.Nodes, Node{})
		return f.message("node", g.Nodes[len(g.Nodes)-1].read)
	case 2:
		return f.text(&g.Name, "graph.name")
	case 5:
		t, err := f.tensor("initializer")
		g.Initializers = append(g.Initializers, t)
		return err
	case 11:
		g.Inputs = append(g.Inputs, Value{})
		return f.message("input", g.Inputs[len(g.Inputs)-1].read)
	case 12:
		g.Outputs = append(g.Outputs, Value{})
		return f.message("output", g.Outputs[len(g.Outputs)-1].read)
	case 15:
		return f.fail("the graph holds sparse initializers, expected dense ones")
	}
	return nil
}

func (n *Node) read(f field) error {
	switch f.number {
	case 1, 2:
		list := &n.Inputs
		if f.number == 2 {
			list = &n.Outputs
		}
		*list = append(*list, "")
		return f.text(&(*list)[len(*list)-1], "node.input or output")
	case 3:
		return f.text(&n.Name, "node.name")
	case 4:
		return f.text(&n.Op, "node.op_type")
	case 5:
		n.Attributes = append(n.Attributes, Attribute{})
		return f.message("attribute", n.Attributes[len(n.Attributes)-1].read)
	case 7:
		err := f.text(&n.Domain, "node.domain")
		if n.Domain == "ai.onnx" {
			n.Domain = ""
		}
		return err
	}
	return nil
}

func (a *Attribute) read(f field) error {
	switch f.number {
	case 1:
		return f.text(&a.Name, "attribute.name")
	case 2:
		a.Float = math.Float32frombits(uint32(f.value))
		return f.expect(protowire.Fixed32Type, "attribute.f")
	case 3:
		return f.int(&a.Int, "attribute.i")
	case 4:
		return f.text(&a.String, "attribute.s")
	case 5:
		t, err := f.tensor("attribute.t")
		a.Tensor = &t
		return err
	case 7:
		var raw []byte
		err := f.fixed(&raw, 4, "attribute.floats")
		for ; len(raw) >= 4; raw = raw[4:] {
			a.Floats = append(a.Floats, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
		}
		return err
	case 8:
		return f.list(&a.Ints, "attribute.ints")
	case 20:
		a.Kind = AttributeKind(f.value)
		return f.expect(protowire.VarintType, "attribute.type")
	}
	return nil
}

func (v *Value) read(f field) error {
	switch f.number {
	case 1:
		return f.text(&v.Name, "name")
	case 2:
		return f.message("type", func(f field) error {
			if f.number != 1 {
				return f.fail("%q is no tensor", v.Name)
			}
			return f.message("tensor_type", func(f field) error {
				switch f.number {
				case 1:
					v.Type = Type(f.value)
					return f.expect(protowire.VarintType, "elem_type")
				case 2:
					return f.message("shape", v.readDimension)
				}
				return nil
			})
		})
	}
	return nil
}

func (v *Value) readDimension(f field) error {
	if f.number != 1 {
		return nil
	}
	size, name := int64(-1), ""
	err := f.message("dim", func(f field) error {
		switch f.number {
		case 1:
			if err := f.int(&size, "dim_value"); err != nil {
				return err
			}
			if size < 0 || size > maxDimension {
				return f.fail("a dimension of %q is %d, expected at least 0", v.Name, size)
			}
			return nil
		case 2:
			return f.text(&name, "dim_param")
		}
		return nil
	})
	v.Dims, v.Axes = append(v.Dims, int(size)), append(v.Axes, name)
	return err
}

// maxDimension bounds dimensions so that products of two do not overflow.
const maxDimension = 1 << 31

// tensor reads a tensor and checks that it has as many values as its dimensions say.
func (f field) tensor(what string) (Tensor, error) {
	var t Tensor
	var dims, ints []int64
	var typed []byte
	raw, inFields := false, false
	location := int64(0)
	err := f.message(what, func(f field) error {
		switch f.number {
		case 1:
			return f.list(&dims, "dims")
		case 2:
			t.Type = Type(f.value)
			return f.expect(protowire.VarintType, "data_type")
		case 3:
			return f.fail("the tensor is split into segments, expected a whole one")
		case 4:
			inFields = true
			return f.fixed(&typed, 4, "float_data")
		case 10:
			inFields = true
			return f.fixed(&typed, 8, "double_data")
		case 5, 7, 11:
			inFields = true
			return f.list(&ints, "int32_data, int64_data or uint64_data")
		case 8:
			return f.text(&t.Name, "tensor.name")
		case 9:
			raw, t.Data = true, f.bytes
			return f.expect(protowire.BytesType, "raw_data")
		case 13:
			var e Entry
			err := f.message("external_data", e.read)
			if t.external == nil {
				t.external = map[string]string{}
			}
			t.external[e.Key] = e.Value
			return err
		case 14:
			return f.int(&location, "data_location")
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	width, known := widths[t.Type]
	if !known {
		return t, f.fail("tensor %q holds %s, expected numbers", t.Name, t.Type)
	}
	size, ok := sizeOf(dims)
	if !ok {
		return t, f.fail("tensor %q has dimensions %v, expected none below 0 and fewer than 2^31 values", t.Name, dims)
	}
	for _, d := range dims {
		t.Dims = append(t.Dims, int(d))
	}
	if location == 1 {
		return t, nil
	}
	t.external = nil
	if !raw && inFields {
		t.Data = typed
		for _, v := range ints {
			t.Data = append(t.Data, binary.LittleEndian.AppendUint64(nil, uint64(v))[:width]...)
		}
	}
	if len(t.Data) != size*width {
		return t, f.fail("tensor %q has %d bytes of data, expected %d for %v of %s", t.Name, len(t.Data), size*width, dims, t.Type)
	}
	return t, nil
}

// sizeOf is the number of values in a shape that a file states.
func sizeOf(dims []int64) (int, bool) {
	size := int64(1)
	for _, d := range dims {
		if d < 0 || d >= maxDimension {
			return 0, false
		}
		if size *= d; size >= maxDimension {
			return 0, false
		}
	}
	return int(size), true
}

// opset is the version of ONNX's own operators that the file uses.
func (f *File) opset() int64 {
	i := slices.IndexFunc(f.Opsets, func(o Opset) bool { return o.Domain == "" })
	if i < 0 {
		return 0
	}
	return f.Opsets[i].Version
}
