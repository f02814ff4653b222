package vec

import (
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
)

// controlFlow builds, on any backend, a program with every operation that takes functions, closures in closures, captured
// values and constants, and runs it.
func controlFlow(t *testing.T, b compute.Backend, x []float32) [][]float32 {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %+v", b.Name(), err)
		}
	}
	value := func(v compute.Value, err error) compute.Value {
		t.Helper()
		check(err)
		return v
	}
	list := func(v []compute.Value, err error) []compute.Value {
		t.Helper()
		check(err)
		return v
	}
	vector, scalar, number := shapes.Make(dtypes.Float32, len(x)), shapes.Make(dtypes.Float32), shapes.Make(dtypes.Int32)
	builder := b.Builder("control")
	main := builder.Main()
	param := func(f compute.Function, name string, shape shapes.Shape) compute.Value {
		t.Helper()
		return value(f.Parameter(name, shape, nil))
	}
	closure := func(f compute.Function) compute.Function {
		t.Helper()
		g, err := f.Closure()
		check(err)
		return g
	}

	// double(v) doubles v three times in a loop whose body captures nothing and whose condition has a constant.
	double, err := builder.NewFunction("double")
	check(err)
	v := param(double, "v", vector)
	factor := value(double.Constant([]float32{2}))
	cond := closure(double)
	i := param(cond, "i", number)
	param(cond, "v", vector)
	check(cond.Return([]compute.Value{value(cond.LessThan(i, value(cond.Constant([]int32{3}))))}, nil))
	body := closure(double)
	i, w := param(body, "i", number), param(body, "v", vector)
	next := value(body.Add(i, value(body.Constant([]int32{1}))))
	check(body.Return([]compute.Value{next, value(body.Mul(w, factor))}, nil)) // factor is captured
	loop := list(double.While(cond, body, value(double.Constant([]int32{0})), v))
	check(double.Return([]compute.Value{loop[1]}, nil))

	in := param(main, "x", vector)
	shift := value(main.Exp(in)) // a native value that closures capture
	doubled := list(main.Call(double, in))[0]
	again := list(main.Call(double, shift))[0]

	// Where the first element is positive a loop adds shift until the sum passes 10; else -x. The loop is in a branch, so
	// that its closures capture from two functions up.
	first := value(main.Reshape(value(main.Slice(in, []int{0}, []int{1}, nil))))
	pred := value(main.GreaterThan(first, value(main.Constant([]float32{0}))))
	yes, no := closure(main), closure(main)
	cond = closure(yes)
	s := param(cond, "s", vector)
	sum := value(cond.ReduceSum(s, 0))
	check(cond.Return([]compute.Value{value(cond.LessThan(sum, value(cond.Constant([]float32{10}))))}, nil))
	body = closure(yes)
	s = param(body, "s", vector)
	check(body.Return([]compute.Value{value(body.Add(s, shift))}, nil))
	check(yes.Return(list(yes.While(cond, body, in)), nil))
	check(no.Return([]compute.Value{value(no.Neg(in))}, nil))
	branch := list(main.If(pred, yes, no))[0]

	order := closure(main)
	a, c := param(order, "a", scalar), param(order, "b", scalar)
	check(order.Return([]compute.Value{value(order.GreaterThan(a, c))}, nil))
	sorted := list(main.Sort(order, 0, true, value(main.Add(branch, doubled))))[0]

	check(main.Return([]compute.Value{doubled, again, branch, sorted, value(main.Add(sorted, shift)), doubled}, nil))
	exec, err := builder.Compile()
	check(err)
	buffer, err := b.BufferFromFlatData(0, x, vector)
	check(err)
	outs, err := exec.Execute([]compute.Buffer{buffer}, nil, 0)
	check(err)
	var results [][]float32
	for _, out := range outs {
		flat := make([]float32, len(x))
		check(out.ToFlatData(flat))
		results = append(results, flat)
	}
	return results
}

// TestControlFlow compares loops, branches, calls and sorts with the Go backend.
func TestControlFlow(t *testing.T) {
	golang, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, "")
	for _, x := range [][]float32{{0.5, -1, 2, 0.25}, {-0.5, 3, 1, -2}} {
		want, got := controlFlow(t, golang, x), controlFlow(t, b, x)
		for i := range want {
			for j := range want[i] {
				if d := want[i][j] - got[i][j]; d > 1e-5 || d < -1e-5 {
					t.Errorf("input %v, output %d: got %v, expected %v", x, i, got[i], want[i])
					break
				}
			}
		}
	}
}

// TestLoop runs loops that exchange what goes round, keep some of it, and capture parameters, results and constants; the
// inputs may be given away, and are not written where they are not.
func TestLoop(t *testing.T) {
	b := newBackend(t, "")
	must := func(v compute.Value, err error) compute.Value {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	vector, number := shapes.Make(dtypes.Float32, 3), shapes.Make(dtypes.Int32)
	builder := b.Builder("loop")
	main := builder.Main()
	rounds, x, y := must(main.Parameter("rounds", number, nil)), must(main.Parameter("x", vector, nil)), must(main.Parameter("y", vector, nil))
	half := must(main.Mul(y, must(main.Constant([]float32{0.5, 0.5, 0.5}, 3))))
	state := func(f compute.Function) []compute.Value {
		return []compute.Value{must(f.Parameter("i", number, nil)), must(f.Parameter("a", vector, nil)), must(f.Parameter("b", vector, nil)),
			must(f.Parameter("kept", vector, nil))}
	}
	cond, _ := main.Closure()
	in := state(cond)
	if err := cond.Return([]compute.Value{must(cond.LessThan(in[0], rounds))}, nil); err != nil {
		t.Fatal(err)
	}
	// i, a, b, kept -> i+1, b, a + kept + half, kept
	body, _ := main.Closure()
	in = state(body)
	next := must(body.Add(must(body.Add(in[1], in[3])), half))
	if err := body.Return([]compute.Value{must(body.Add(in[0], must(body.Constant([]int32{1})))), in[2], next, in[3]}, nil); err != nil {
		t.Fatal(err)
	}
	end, err := main.While(cond, body, must(main.Constant([]int32{0})), x, y, y)
	if err != nil {
		t.Fatal(err)
	}
	if err := main.Return(append(end, must(main.Add(end[1], x))), nil); err != nil {
		t.Fatal(err)
	}
	exec, err := builder.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rounds int32
		donate bool
	}{{0, false}, {1, false}, {2, true}, {5, false}, {5, true}} {
		flat := [][]float32{{1, 2, 3}, {10, 20, 30}}
		inputs := []compute.Buffer{must(b.BufferFromFlatData(0, []int32{c.rounds}, number)).(compute.Buffer)}
		for _, v := range flat {
			inputs = append(inputs, must(b.BufferFromFlatData(0, v, vector)).(compute.Buffer))
		}
		outs, err := exec.Execute(inputs, []bool{c.donate, c.donate, c.donate}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for k := range 3 {
			p, q := flat[0][k], flat[1][k]
			for range c.rounds {
				p, q = q, p+flat[1][k]+flat[1][k]/2
			}
			for i, want := range []float32{p, q, flat[1][k], p + flat[0][k]} {
				got := make([]float32, 3)
				if err := outs[i+1].ToFlatData(got); err != nil || got[k] != want {
					t.Errorf("%+v: output %d, element %d is %g (%v), expected %g", c, i+1, k, got[k], err, want)
				}
			}
			if got := make([]float32, 3); !c.donate {
				if err := inputs[2].ToFlatData(got); err != nil || got[k] != flat[1][k] {
					t.Errorf("%+v: the loop left %v of an input (%v)", c, got, err)
				}
			}
		}
		for _, out := range outs {
			if err := out.Finalize(); err != nil {
				t.Fatal(err)
			}
		}
	}
	loop := exec.(*Executable).program.closures[1]
	exec.Finalize()
	if _, shapes := loop.Inputs(); shapes != nil {
		t.Error("a loop's program outlives the one around it")
	}
}
