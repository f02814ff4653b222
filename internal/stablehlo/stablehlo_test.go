package stablehlo

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	hlo "github.com/gomlx/go-xla/stablehlo"
	"github.com/gomlx/go-xla/types"
	"github.com/gomlx/go-xla/types/shapes"
	"github.com/gomlx/go-xla/types/shardy"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// written is the text that go-xla makes of a main function.
func written(build func(f *hlo.Function) []*hlo.Value) string {
	b := hlo.New("test")
	f := b.Main()
	if err := f.Return(build(f)...); err != nil {
		panic(err)
	}
	return string(must(b.Build()))
}

// run compiles a program and computes its results as slices.
func run(t *testing.T, text string, inputs ...any) []any {
	t.Helper()
	b := must(vec.New(""))
	defer b.Finalize()
	p, err := Compile(b, []byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	var in []compute.Buffer
	for i, v := range inputs {
		in = append(in, must(b.BufferFromFlatData(0, v, p.In[i].Shape)))
	}
	var results []any
	for i, out := range must(p.Exec.Execute(in, nil, 0)) {
		flat := dtypes.MakeAnySlice(p.Out[i].Shape.DType, p.Out[i].Shape.Size())
		if err := out.ToFlatData(flat); err != nil {
			t.Fatal(err)
		}
		results = append(results, flat)
	}
	return results
}

func f32(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }

func equal[T comparable](t *testing.T, what string, got any, want ...T) {
	t.Helper()
	if !slices.Equal(got.([]T), want) {
		t.Errorf("%s is %v, expected %v", what, got, want)
	}
}

func TestElementwise(t *testing.T) {
	out := run(t, written(func(f *hlo.Function) []*hlo.Value {
		x, y := must(f.NamedInput("x", f32(3))), must(f.NamedInput("y", f32(3)))
		less := must(hlo.Compare(x, y, types.CompareLT, types.CompareFloat))
		edge := must(f.ConstantFromFlatAndShape([]float32{float32(math.Inf(-1)), 1e-5, 3}, f32(3)))
		return []*hlo.Value{
			must(hlo.Subtract(x, y)), must(hlo.Select(less, x, y)), must(hlo.Negate(must(hlo.Abs(x)))), edge,
			must(hlo.Convert(less, dtypes.Int32)), must(hlo.Or(less, must(hlo.Not(less)))), must(hlo.Clamp(y, x, y)),
			must(hlo.Convert(x, dtypes.BFloat16)),
		}
	}), []float32{1, -2, 0.1}, []float32{2, -3, 0.1})
	equal[float32](t, "x-y", out[0], -1, 1, 0)
	equal[float32](t, "select", out[1], 1, -3, 0.1)
	equal[float32](t, "-|x|", out[2], -1, -2, -0.1)
	equal(t, "a constant", out[3], float32(math.Inf(-1)), 1e-5, 3)
	equal[int32](t, "x<y", out[4], 1, 0, 0)
	equal(t, "or", out[5], true, true, true)
	equal[float32](t, "clamp", out[6], 2, -3, 0.1)
	equal(t, "bfloat16", out[7], bfloat16.FromFloat32(1), bfloat16.FromFloat32(-2), bfloat16.FromFloat32(0.1))
}

func TestShapes(t *testing.T) {
	out := run(t, written(func(f *hlo.Function) []*hlo.Value {
		x := must(f.NamedInput("x", f32(2, 3)))
		zero := must(f.ConstantFromScalar(float32(0)))
		rows := must(f.ConstantFromFlatAndShape([]int32{1, 0, 1}, shapes.Make(dtypes.Int32, 3, 1)))
		return []*hlo.Value{
			must(hlo.Transpose(x, 1, 0)), must(hlo.Reverse(x, 1)), must(hlo.Slice(x, []int{0, 1}, []int{2, 3}, nil)),
			must(hlo.Pad(must(hlo.Slice(x, []int{0, 0}, []int{1, 2}, nil)), zero, []int{0, 1}, []int{0, 0}, []int{0, 1})),
			must(hlo.Concatenate(0, x, x)), must(hlo.BroadcastInDim(zero, f32(2), nil)), must(f.Iota(shapes.Make(dtypes.Int32, 2, 2), 1)),
			must(hlo.Gather(x, rows, 1, []int{1}, []int{0}, nil, nil, []int{0}, []int{1, 3}, false)),
		}
	}), []float32{1, 2, 3, 4, 5, 6})
	equal[float32](t, "transpose", out[0], 1, 4, 2, 5, 3, 6)
	equal[float32](t, "reverse", out[1], 3, 2, 1, 6, 5, 4)
	equal[float32](t, "slice", out[2], 2, 3, 5, 6)
	equal[float32](t, "pad", out[3], 0, 1, 0, 2)
	equal[float32](t, "concatenate", out[4], 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6)
	equal[float32](t, "broadcast", out[5], 0, 0)
	equal[int32](t, "iota", out[6], 0, 1, 0, 1)
	equal[float32](t, "gather", out[7], 4, 5, 6, 1, 2, 3, 4, 5, 6)
}

// adds is a region that adds two numbers.
func adds(f *hlo.Function) *hlo.Function {
	g := f.Closure()
	x, y := must(g.NamedInput("lhs", f32())), must(g.NamedInput("rhs", f32()))
	if err := g.Return(must(hlo.Add(x, y))); err != nil {
		panic(err)
	}
	return g
}

func TestProductsAndReductions(t *testing.T) {
	out := run(t, written(func(f *hlo.Function) []*hlo.Value {
		x, w := must(f.NamedInput("x", f32(2, 3))), must(f.NamedInput("w", f32(2, 3)))
		start := must(f.ConstantFromScalar(float32(10)))
		image := must(hlo.Reshape(x, f32(1, 2, 3, 1)))
		kernel := must(f.ConstantFromFlatAndShape([]float32{1, 100}, f32(1, 2, 1, 1)))
		zero := must(f.ConstantFromScalar(float32(0)))
		return []*hlo.Value{
			must(hlo.DotGeneral(x, []int{1}, nil, w, []int{1}, nil).Done()),
			must(hlo.Reduce(x, start, adds(f), 0)),
			must(hlo.Convolution(image, kernel, nil, [][2]int{{0, 0}, {1, 0}}, nil, nil, 0, 3, []int{1, 2}, 2, 3, []int{0, 1}, 0, 3, []int{1, 2}, 1, 1,
				types.DotGeneralPrecisionDefault, types.DotGeneralPrecisionDefault)),
			must(hlo.ReduceWindow(x, zero, adds(f), []int{1, 2}, []int{1, 1}, nil, nil, nil)),
		}
	}), []float32{1, 2, 3, 4, 5, 6}, []float32{1, 0, 1, 0, 1, 0})
	equal[float32](t, "x·w", out[0], 4, 2, 10, 5)
	equal[float32](t, "sum", out[1], 15, 17, 19)
	equal[float32](t, "convolution", out[2], 100, 201, 302, 400, 504, 605)
	equal[float32](t, "window", out[3], 3, 5, 9, 11)
}

// A loop's functions see what is around them.
func TestLoop(t *testing.T) {
	out := run(t, written(func(f *hlo.Function) []*hlo.Value {
		n, x := must(f.NamedInput("n", shapes.Make(dtypes.Int32))), must(f.NamedInput("x", f32(2)))
		state := func(g *hlo.Function) (i, y *hlo.Value) {
			return must(g.NamedInput("i", shapes.Make(dtypes.Int32))), must(g.NamedInput("y", f32(2)))
		}
		cond, body := f.Closure(), f.Closure()
		i, _ := state(cond)
		if err := cond.Return(must(hlo.Compare(i, must(cond.UseParentValue(n)), types.CompareLT, types.CompareSigned))); err != nil {
			panic(err)
		}
		i, y := state(body)
		if err := body.Return(must(hlo.Add(i, must(body.ConstantFromScalar(int32(1))))), must(hlo.Add(y, must(body.UseParentValue(x))))); err != nil {
			panic(err)
		}
		return must(hlo.While(cond, body, must(f.ConstantFromScalar(int32(0))), x))
	}), []int32{3}, []float32{1, 2})
	equal[int32](t, "i", out[0], 3)
	equal[float32](t, "y", out[1], 4, 8)
}

func TestDevices(t *testing.T) {
	b := hlo.New("test")
	mesh := must(shardy.NewDeviceMesh("devices", []int{2}, []string{"images"}))
	b.WithShardy(mesh)
	f := b.Main()
	x := must(f.NamedInputWithSharding("x", f32(4, 3), shardy.NewShardingSpec(mesh).AddShardedAxis("images")))
	w := must(f.NamedInputWithSharding("w", f32(4, 3), shardy.NewShardingSpec(mesh)))
	err := f.ReturnWithShardingAndAttributes([]*hlo.Value{must(hlo.Add(x, w)), must(hlo.Multiply(x, w))},
		[]*shardy.ShardingSpec{shardy.NewShardingSpec(mesh), shardy.NewShardingSpec(mesh).AddShardedAxis("images")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := must(vec.New(""))
	defer v.Finalize()
	p, err := Compile(v, must(b.Build()))
	if err != nil {
		t.Fatal(err)
	}
	if p.Devices != 2 || !p.In[0].Cut || p.In[1].Cut || p.Out[0].Cut || !p.Out[1].Cut || p.Name != "test" {
		t.Errorf("%+v", p)
	}
}

const sound = `module @m {
  func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
    %1 = "stablehlo.constant"() { value = dense<[1.0, 2.0]> : tensor<2xf32> } : () -> tensor<2xf32>
    %2 = "stablehlo.add"(%x, %1) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    "stablehlo.return"(%2) : (tensor<2xf32>) -> ()
  }
}
`

func TestMistakesAreNamed(t *testing.T) {
	equal[float32](t, "a sound program", run(t, sound, []float32{1, 1})[0], 2, 3)
	for _, c := range []struct{ old, new, want string }{
		{"stablehlo.add", "stablehlo.tan", "line 4: stablehlo.tan: this operation is not known here"},
		{"(%x, %1)", "(%x, %7)", "there is no value %7"},
		{"(%x, %1)", "(%x)", "malformed"},
		{"[1.0, 2.0]", "[1.0]", "line 3: stablehlo.constant: 1 values, expected 2"},
		{"(%x: tensor<2xf32>)", "(%x: tensor<2xf99>)", `line 2: an element type "f99"`},
		{"@main", "@other", "has no function main"},
		{`"stablehlo.return"(%2) : (tensor<2xf32>) -> ()`, "", "does not end with a return"},
		{"module @m {", "module @m attributes {stablehlo.num_replicas = 4} {", "line 1: 4 replicas"},
		{"-> tensor<2xf32>\n    %2", "-> tensor<3xf32>\n    %2", "line 3: stablehlo.constant: 2 values, expected 3"},
	} {
		text := strings.Replace(sound, c.old, c.new, 1)
		b := must(vec.New(""))
		if _, err := Compile(b, []byte(text)); text == sound || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %q for %q: %v, expected %q", c.new, c.old, err, c.want)
		}
		b.Finalize()
	}
}

// Any text is a program or an error.
func FuzzCompile(f *testing.F) {
	f.Add(sound)
	f.Add(written(func(f *hlo.Function) []*hlo.Value {
		return []*hlo.Value{must(hlo.Reduce(must(f.NamedInput("x", f32(2, 3))), must(f.ConstantFromScalar(float32(0))), adds(f), 0))}
	}))
	b := must(vec.New(""))
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := Compile(b, []byte(text)); err == nil {
			p.Exec.Finalize()
		}
	})
}
