// Package stablehlo runs programs of StableHLO, as go-xla writes them, on a backend of this process: what a build with -tags xla
// sends to XLA can be run where there is no XLA. It knows the operations that the graphs of this module are made of, and names
// any other. The language is specified at https://openxla.org/stablehlo/spec.
package stablehlo

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/shapes"
)

// Program is a compiled module. Exec computes the whole, whatever the number of devices that are to share it.
type Program struct {
	Name    string
	Devices int
	In, Out []Tensor
	Exec    compute.Executable
}

// Tensor is an input or an output: its shape as a whole, and whether its first axis is cut into a part for each device. What
// is not cut lies on every device.
type Tensor struct {
	Shape shapes.Shape
	Cut   bool
}

// Compile reads a module and compiles its main function. An error names the line and what was expected there.
func Compile(b compute.Backend, text []byte) (program *Program, err error) {
	defer func() {
		switch f := recover().(type) {
		case nil:
		case fault:
			program, err = nil, fmt.Errorf("StableHLO, %w", f.error)
		default: // an operation with too few operands, attributes or regions, or one that the backend cannot take
			program, err = nil, fmt.Errorf("StableHLO, a malformed operation: %v", f)
		}
	}()
	m := (&parser{text: string(text)}).module()
	main := m.funcs[compute.MainName]
	if main == nil {
		return nil, fmt.Errorf("StableHLO module %s has no function %s", m.name, compute.MainName)
	}
	builder := b.Builder(m.name)
	c := &compiler{module: m}
	p := &Program{Name: m.name, Devices: m.devices, In: m.tensors(main.params), Out: m.tensors(main.results)}
	if err := c.define(builder.Main(), main, nil); err != nil {
		return nil, err
	}
	p.Exec, err = builder.Compile()
	return p, err
}

func (m *module) tensors(all []typed) (out []Tensor) {
	for _, t := range all {
		if t.cut && (t.shape.Rank() == 0 || t.shape.Dimensions[0]%m.devices != 0) {
			panic(fault{fmt.Errorf("%s of %s cannot be cut into %d", t.name, t.shape, m.devices)})
		}
		out = append(out, Tensor{t.shape, t.cut})
	}
	return out
}

type compiler struct{ module *module }

// scope has the values of a function by name; those of the functions around it are seen too.
type scope struct {
	around *scope
	values map[string]compute.Value
}

func (s *scope) value(name string) compute.Value {
	for ; s != nil; s = s.around {
		if v, found := s.values[name]; found {
			return v
		}
	}
	panic(fault{fmt.Errorf("there is no value %%%s", name)})
}

// define writes a function of the module as f.
func (c *compiler) define(f compute.Function, from *function, around *scope) error {
	s := &scope{around, map[string]compute.Value{}}
	for _, p := range from.params {
		v, err := f.Parameter(p.name, p.shape, nil)
		if err != nil {
			return err
		}
		s.values[p.name] = v
	}
	out, err := c.body(f, from, s)
	if err != nil {
		return err
	}
	return f.Return(out, nil)
}

// body adds the operations of a function to f and gives what they return.
func (c *compiler) body(f compute.Function, from *function, s *scope) ([]compute.Value, error) {
	for _, o := range from.ops {
		var in []compute.Value
		for _, name := range o.in {
			in = append(in, s.value(name))
		}
		if o.name == "stablehlo.return" {
			return in, nil
		}
		out, err := c.operation(f, o, in, s)
		if err == nil && len(out) != len(o.out) {
			err = fmt.Errorf("%d results, expected %d", len(out), len(o.out))
		}
		for i := 0; i < len(out) && err == nil; i++ {
			s.values[o.out[i]] = out[i]
			var got shapes.Shape
			if got, err = f.Shape(out[i]); err == nil && !got.Equal(o.shapes[i]) {
				err = fmt.Errorf("a result of %s, expected %s", got, o.shapes[i])
			}
		}
		if err != nil {
			return nil, fmt.Errorf("StableHLO, line %d: %s: %w", o.line, o.name, err)
		}
	}
	panic("a function without a return was parsed")
}

var unary = map[string]func(compute.Function, compute.Value) (compute.Value, error){
	"abs": compute.Function.Abs, "ceil": compute.Function.Ceil, "cosine": compute.Function.Cos, "exponential": compute.Function.Exp,
	"exponential_minus_one": compute.Function.Expm1, "floor": compute.Function.Floor, "is_finite": compute.Function.IsFinite,
	"log": compute.Function.Log, "log_plus_one": compute.Function.Log1p, "logistic": compute.Function.Logistic, "negate": compute.Function.Neg,
	"round_nearest_even": compute.Function.Round, "rsqrt": compute.Function.Rsqrt, "sign": compute.Function.Sign, "sine": compute.Function.Sin,
	"sqrt": compute.Function.Sqrt, "tanh": compute.Function.Tanh,
}

type binaryOp func(f compute.Function, x, y compute.Value) (compute.Value, error)

var binary = map[string]binaryOp{
	"add": compute.Function.Add, "divide": compute.Function.Div, "maximum": compute.Function.Max, "minimum": compute.Function.Min,
	"multiply": compute.Function.Mul, "power": compute.Function.Pow, "remainder": compute.Function.Rem, "subtract": compute.Function.Sub,
}

// logical and bitwise are the operations that are one on bool and another on whole numbers.
var (
	logical = map[string]binaryOp{"and": compute.Function.LogicalAnd, "or": compute.Function.LogicalOr, "xor": compute.Function.LogicalXor}
	bitwise = map[string]binaryOp{"and": compute.Function.BitwiseAnd, "or": compute.Function.BitwiseOr, "xor": compute.Function.BitwiseXor}
)

var compare = map[string]binaryOp{
	"EQ": compute.Function.Equal, "NE": compute.Function.NotEqual, "GE": compute.Function.GreaterOrEqual,
	"GT": compute.Function.GreaterThan, "LE": compute.Function.LessOrEqual, "LT": compute.Function.LessThan,
}

type reduction struct {
	reduce func(f compute.Function, x compute.Value, axes ...int) (compute.Value, error)
	window compute.ReduceOpType
}

var reductions = map[string]reduction{
	"add": {compute.Function.ReduceSum, compute.ReduceOpSum}, "multiply": {compute.Function.ReduceProduct, compute.ReduceOpProduct},
	"maximum": {compute.Function.ReduceMax, compute.ReduceOpMax}, "minimum": {compute.Function.ReduceMin, compute.ReduceOpMin},
}

// reduction is the only operation of the i-th region.
func (o *operation) reduction(i int) (string, reduction, error) {
	if ops := o.regions[i].ops; len(ops) == 2 {
		name := strings.TrimPrefix(ops[0].name, "stablehlo.")
		if r, known := reductions[name]; known {
			return name, r, nil
		}
	}
	return "", reduction{}, fmt.Errorf("it reduces by something else than a sum, a product, a maximum or a minimum")
}

// operation adds one operation to f.
func (c *compiler) operation(f compute.Function, o *operation, in []compute.Value, s *scope) ([]compute.Value, error) {
	one := func(v compute.Value, err error) ([]compute.Value, error) { return []compute.Value{v}, err }
	name := strings.TrimPrefix(o.name, "stablehlo.")
	if op, found := unary[name]; found {
		return one(op(f, in[0]))
	}
	if op, found := binary[name]; found {
		return one(op(f, in[0], in[1]))
	}
	var to shapes.Shape
	if len(o.shapes) > 0 {
		to = o.shapes[0]
	}
	switch name {
	case "and", "or", "xor":
		op := bitwise
		if to.DType == dtypes.Bool {
			op = logical
		}
		return one(op[name](f, in[0], in[1]))
	case "not":
		if to.DType == dtypes.Bool {
			return one(f.LogicalNot(in[0]))
		}
		return one(f.BitwiseNot(in[0]))
	case "compare":
		direction := strings.TrimSuffix(strings.TrimPrefix(o.attr("comparison_direction"), "#stablehlo<comparison_direction "), ">")
		op, known := compare[direction]
		if !known || strings.Contains(o.attr("compare_type"), "TOTALORDER") {
			return nil, fmt.Errorf("a comparison by %s", o.attr("comparison_direction"))
		}
		return one(op(f, in[0], in[1]))
	case "select":
		return one(f.Where(in[0], in[1], in[2]))
	case "clamp":
		return one(f.Clamp(in[0], in[1], in[2]))
	case "constant":
		flat, err := o.constant(to)
		if err != nil {
			return nil, err
		}
		return one(f.Constant(flat, to.Dimensions...))
	case "iota":
		return one(f.Iota(to, o.numbers("iota_dimension")[0]))
	case "convert":
		return one(f.ConvertDType(in[0], to.DType))
	case "bitcast_convert":
		return one(f.Bitcast(in[0], to.DType))
	case "reshape":
		return one(f.Reshape(in[0], to.Dimensions...))
	case "broadcast_in_dim":
		return one(f.BroadcastInDim(in[0], to, o.numbers("broadcast_dimensions")))
	case "transpose":
		return one(f.Transpose(in[0], o.numbers("permutation")...))
	case "reverse":
		return one(f.Reverse(in[0], o.numbers("dimensions")...))
	case "concatenate":
		return one(f.Concatenate(o.numbers("dimension")[0], in...))
	case "slice":
		return one(f.Slice(in[0], o.numbers("start_indices"), o.numbers("limit_indices"), o.numbers("strides")))
	case "pad":
		low, high, between := o.numbers("edge_padding_low"), o.numbers("edge_padding_high"), o.numbers("interior_padding")
		var axes []compute.PadAxis
		for i := range low {
			axes = append(axes, compute.PadAxis{Start: low[i], End: high[i], Interior: between[i]})
		}
		return one(f.Pad(in[0], in[1], axes...))
	case "gather":
		const numbers = "dimension_numbers"
		return one(f.Gather(in[0], in[1], o.field(numbers, "index_vector_dim")[0], o.field(numbers, "offset_dims"),
			o.field(numbers, "collapsed_slice_dims"), o.field(numbers, "start_index_map"), o.numbers("slice_sizes"), o.attr("indices_are_sorted") == "true"))
	case "dot_general":
		return one(o.dot(f, in, to))
	case "convolution":
		return one(o.convolve(f, in))
	case "reduce":
		return o.reduce(f, in)
	case "reduce_window":
		_, r, err := o.reduction(0)
		if err != nil {
			return nil, err
		}
		return one(f.ReduceWindow(in[0], r.window, o.numbers("window_dimensions"), o.numbers("window_strides"), o.numbers("base_dilations"),
			o.numbers("window_dilations"), o.pairs("padding")))
	case "select_and_scatter":
		scatter := f.SelectAndScatterMax
		if direction := o.regions[0].ops[0].attrs["comparison_direction"]; strings.Contains(direction, "direction L") {
			scatter = f.SelectAndScatterMin
		}
		return one(scatter(in[0], in[1], o.numbers("window_dimensions"), o.numbers("window_strides"), o.pairs("padding")))
	case "while", "if":
		var closures []compute.Function
		for _, region := range o.regions {
			g, err := f.Closure()
			if err == nil {
				err = c.define(g, region, s)
			}
			if err != nil {
				return nil, err
			}
			closures = append(closures, g)
		}
		if name == "if" {
			return f.If(in[0], closures[0], closures[1])
		}
		return f.While(closures[0], closures[1], in...)
	case "optimization_barrier":
		return in, nil
	case "func.call":
		callee := c.module.funcs[strings.TrimPrefix(o.attr("callee"), "@")]
		if callee == nil || len(callee.params) != len(in) {
			return nil, fmt.Errorf("no function %s of %d parameters", o.attr("callee"), len(in))
		}
		inner := &scope{nil, map[string]compute.Value{}}
		for i, p := range callee.params {
			inner.values[p.name] = in[i]
		}
		return c.body(f, callee, inner)
	}
	return nil, fmt.Errorf("this operation is not known here")
}

// dot is a dot_general, which StableHLO lets have results of another type than its operands.
func (o *operation) dot(f compute.Function, in []compute.Value, to shapes.Shape) (compute.Value, error) {
	const numbers = "dot_dimension_numbers"
	from, err := f.Shape(in[0])
	if err != nil {
		return nil, err
	}
	var config compute.DotGeneralConfig
	if from.DType != to.DType {
		config = compute.DotGeneralConfig{AccumulatorDType: to.DType, OutputDType: to.DType}
	}
	return f.DotGeneral(in[0], o.field(numbers, "lhs_contracting_dimensions"), o.field(numbers, "lhs_batching_dimensions"),
		in[1], o.field(numbers, "rhs_contracting_dimensions"), o.field(numbers, "rhs_batching_dimensions"), config)
}

// convolve is a convolution. Its axes are #stablehlo.conv<[b, 0, 1, f]x[o, i, 0, 1]->[b, 0, 1, f]>.
func (o *operation) convolve(f compute.Function, in []compute.Value) (compute.Value, error) {
	parts := strings.FieldsFunc(strings.TrimPrefix(o.attr("dimension_numbers"), "#stablehlo.conv"), func(r rune) bool { return strings.ContainsRune("<>[]", r) })
	if len(parts) != 5 || parts[1] != "x" || parts[3] != "-" {
		return nil, fmt.Errorf("axes %s", o.attr("dimension_numbers"))
	}
	find := func(part int, first, second string) (a, b int, spatial []int) {
		axes := strings.Split(parts[part], ", ")
		for k := range len(axes) - 2 {
			spatial = append(spatial, slices.Index(axes, strconv.Itoa(k)))
		}
		return slices.Index(axes, first), slices.Index(axes, second), spatial
	}
	var a compute.ConvolveAxesConfig
	a.InputBatch, a.InputChannels, a.InputSpatial = find(0, "b", "f")
	a.KernelInputChannels, a.KernelOutputChannels, a.KernelSpatial = find(2, "i", "o")
	a.OutputBatch, a.OutputChannels, a.OutputSpatial = find(4, "b", "f")
	if strings.Contains(o.attr("window_reversal"), "true") {
		return nil, fmt.Errorf("a reversed window")
	}
	return f.ConvGeneral(in[0], in[1], a, o.numbers("window_strides"), o.pairs("padding"), o.numbers("lhs_dilation"), o.numbers("rhs_dilation"),
		o.numbers("feature_group_count")[0], o.numbers("batch_group_count")[0])
}

// reduce is a reduction of one tensor from an initial value, or go-xla's way to find where a largest or smallest value is: it
// reduces the positions and the values together.
func (o *operation) reduce(f compute.Function, in []compute.Value) ([]compute.Value, error) {
	axes := o.numbers("dimensions")
	if len(in) == 4 && len(axes) == 1 {
		ops := o.regions[0].ops
		least := ops[len(ops)-2].name == "stablehlo.minimum"
		where, err := f.ArgMinMax(in[1], axes[0], o.shapes[0].DType, least)
		if err != nil {
			return nil, err
		}
		extreme := f.ReduceMax
		if least {
			extreme = f.ReduceMin
		}
		value, err := extreme(in[1], axes...)
		return []compute.Value{where, value}, err
	}
	name, r, err := o.reduction(0)
	if err != nil || len(in) != 2 {
		return nil, fmt.Errorf("a reduction of %d values: %w", len(in)/2, err)
	}
	y, err := r.reduce(f, in[0], axes...)
	if err != nil {
		return nil, err
	}
	start, err := f.BroadcastInDim(in[1], o.shapes[0], nil)
	if err != nil {
		return nil, err
	}
	y, err = binary[name](f, y, start)
	return []compute.Value{y}, err
}

// constant is the values of dense<...> : type, as a slice.
func (o *operation) constant(shape shapes.Shape) (any, error) {
	text := o.attr("value")
	if i := strings.LastIndex(text, " : "); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimSuffix(strings.TrimPrefix(text, "dense<"), ">")
	fields := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \n,[]", r) })
	n := shape.Size()
	if len(fields) != n {
		return nil, fmt.Errorf("%d values, expected %d", len(fields), n)
	}
	flat := reflect.ValueOf(dtypes.MakeAnySlice(shape.DType, n))
	for i, field := range fields {
		if err := set(flat.Index(i), field); err != nil {
			return nil, err
		}
	}
	return flat.Interface(), nil
}

// float reads a float of so many bits. One that is not finite is written as its bits.
func float(text string, size int, ofBits func(bits uint64) float64) (float64, error) {
	if !strings.HasPrefix(text, "0x") {
		return strconv.ParseFloat(text, 64)
	}
	bits, err := strconv.ParseUint(text, 0, size)
	return ofBits(bits), err
}

// set reads one number.
func set(to reflect.Value, text string) error {
	var x float64
	var err error
	switch v := to.Addr().Interface().(type) {
	case *bool:
		*v, err = strconv.ParseBool(text)
	case *float32:
		x, err = float(text, 32, func(bits uint64) float64 { return float64(math.Float32frombits(uint32(bits))) })
		*v = float32(x)
	case *float64:
		*v, err = float(text, 64, math.Float64frombits)
	case *bfloat16.BFloat16:
		x, err = float(text, 16, func(bits uint64) float64 { return float64(bfloat16.BFloat16(bits).Float32()) })
		*v = bfloat16.FromFloat32(float32(x))
	default:
		switch {
		case to.CanInt():
			var n int64
			n, err = strconv.ParseInt(text, 0, to.Type().Bits())
			to.SetInt(n)
		case to.CanUint():
			var n uint64
			n, err = strconv.ParseUint(text, 0, to.Type().Bits())
			to.SetUint(n)
		default:
			err = fmt.Errorf("constants of %s are not known here", to.Type())
		}
	}
	return err
}
