package vec

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/internal/rng"
)

// compileConvolution builds relu(x * (w·s)), x of [2,6,6,3], w of [4,3,3,3] and s of [4,1,1,1], whose packed weights are kept.
func compileConvolution(t *testing.T, b compute.Backend) compute.Executable {
	t.Helper()
	builder := b.Builder("convolution")
	f := builder.Main()
	value := func(v compute.Value, err error) compute.Value {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	x := value(f.Parameter("x", shapes.Make(dtypes.Float32, 2, 6, 6, 3), nil))
	w := value(f.Parameter("w", shapes.Make(dtypes.Float32, 4, 3, 3, 3), nil))
	s := value(f.Parameter("s", shapes.Make(dtypes.Float32, 4, 1, 1, 1), nil))
	zero := value(f.Constant([]float32{0}))
	axes := compute.ConvolveAxesConfig{
		InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
		KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
		OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
	}
	y := value(f.ConvGeneral(x, value(f.Mul(w, s)), axes, nil, [][2]int{{1, 1}, {1, 1}}, nil, nil, 1, 1))
	if err := f.Return([]compute.Value{value(f.Max(y, zero))}, nil); err != nil {
		t.Fatal(err)
	}
	exec, err := builder.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return exec
}

func upload(t *testing.T, b compute.Backend, in *input) compute.Buffer {
	t.Helper()
	buf, err := b.BufferFromFlatData(0, in.values, shapes.Make(dtypes.Float32, in.dims...))
	if err != nil {
		t.Fatal(err)
	}
	return buf
}

func runOne(t *testing.T, exec compute.Executable, in ...compute.Buffer) []float32 {
	t.Helper()
	outs, err := exec.Execute(in, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	flat := make([]float32, outs[0].(*Buffer).shape.Size())
	if err := outs[0].ToFlatData(flat); err != nil {
		t.Fatal(err)
	}
	return flat
}

// TestKeptWeights changes weights in every way a client can, and expects the results of a program that keeps nothing.
func TestKeptWeights(t *testing.T) {
	b := newBackend(t, "")
	exec := compileConvolution(t, b)
	r := rng.New(1, "vec test")
	xs, ws, ss := randomInput(r, 2, 6, 6, 3), randomInput(r, 4, 3, 3, 3), randomInput(r, 4, 1, 1, 1)
	x, w, s := upload(t, b, xs), upload(t, b, ws), upload(t, b, ss)
	check := func(what string) {
		t.Helper()
		got := runOne(t, exec, x, w, s)
		fresh := runOne(t, compileConvolution(t, b), x, w, s)
		if !slices.Equal(got, fresh) {
			t.Fatalf("%s: the weights used are old", what)
		}
		if again := runOne(t, exec, x, w, s); !slices.Equal(got, again) {
			t.Fatalf("%s: a second execution gives something else", what)
		}
	}
	check("first weights")
	w = upload(t, b, randomInput(r, 4, 3, 3, 3))
	check("another buffer")
	s = upload(t, b, randomInput(r, 4, 1, 1, 1))
	check("another scale")
	data, err := w.Data()
	if err != nil {
		t.Fatal(err)
	}
	check("the buffer's memory handed out")
	for i := range 3 {
		data.([]float32)[i*7] += 1
		check("the buffer's memory written")
	}
	shared, flat, err := b.NewSharedBuffer(0, shapes.Make(dtypes.Float32, 4, 3, 3, 3))
	if err != nil {
		t.Fatal(err)
	}
	w = shared
	for range 3 {
		copy(flat.([]float32), randomInput(r, 4, 3, 3, 3).values)
		check("a shared buffer written")
	}
	w = upload(t, b, ws)
	check("back to the first weights")
}

// TestThreads expects the same bits from any number of threads, from executions one after another and at the same time.
func TestThreads(t *testing.T) {
	one, many := newBackend(t, "threads=1"), newBackend(t, "threads=5")
	for i := range uint64(12) {
		for kind, random := range []func(*testing.T, uint64) *example{
			func(t *testing.T, i uint64) *example { return randomConvolution(rng.New(2, "vec test", i)) },
			func(t *testing.T, i uint64) *example { return randomElementwise(rng.New(3, "vec test", i)) },
		} {
			e := random(t, i)
			want := e.execute(t, one, dtypes.Float32)
			for range 2 {
				if got := e.execute(t, many, dtypes.Float32); !equalBits(got, want) {
					t.Fatalf("kind %d, %s: five threads give something else than one", kind, e.name)
				}
			}
		}
	}

	b := newBackend(t, "threads=3")
	e := randomElementwise(rng.New(4, "vec test"))
	exec := graph.MustNewExec(b, func(in []*graph.Node) []*graph.Node { return e.build(in) })
	args := make([]any, len(e.inputs))
	for i, in := range e.inputs {
		args[i] = tensors.FromFlatDataAndDimensions(in.values, in.dims...)
	}
	first := exec.MustCall(args...)
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for range 5 {
				outs, err := exec.Call(args...)
				if err != nil {
					t.Error(err)
					return
				}
				for i, out := range outs {
					if !out.Equal(first[i]) {
						t.Errorf("output %d of executions at the same time differs", i)
					}
				}
			}
		})
	}
	wg.Wait()
}

func equalBits(a, b [][]float64) bool {
	return slices.EqualFunc(a, b, func(x, y []float64) bool {
		return slices.EqualFunc(x, y, func(x, y float64) bool { return x == y || x != x && y != y })
	})
}

// TestErrors says what a client did wrong.
func TestErrors(t *testing.T) {
	b, other := newBackend(t, ""), newBackend(t, "")
	exec := compileConvolution(t, b)
	r := rng.New(1, "vec test")
	x, w, s := upload(t, b, randomInput(r, 2, 6, 6, 3)), upload(t, b, randomInput(r, 4, 3, 3, 3)), upload(t, b, randomInput(r, 4, 1, 1, 1))
	gone := upload(t, b, randomInput(r, 4, 1, 1, 1))
	if err := gone.Finalize(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		in    []compute.Buffer
		wants []string
	}{
		{"too few", []compute.Buffer{x, w}, []string{"takes 3 inputs", "2 given"}},
		{"wrong shape", []compute.Buffer{x, s, s}, []string{`parameter "w" (input 1)`, "[4, 1, 1, 1]", "[4, 3, 3, 3]"}},
		{"finalized", []compute.Buffer{x, w, gone}, []string{`parameter "s" (input 2)`, "finalized"}},
		{"none", []compute.Buffer{x, nil, s}, []string{`parameter "w" (input 1)`, "expected a buffer"}},
		{"another backend", []compute.Buffer{upload(t, other, randomInput(r, 2, 6, 6, 3)), w, s}, []string{`parameter "x" (input 0)`, "another instance"}},
	} {
		_, err := exec.Execute(c.in, nil, 0)
		expectError(t, c.name, err, c.wants...)
	}
	_, err := exec.Execute([]compute.Buffer{x, w, s}, nil, 1)
	expectError(t, "device", err, "device 1", "only device 0")
	_, err = exec.Execute([]compute.Buffer{x, w, s}, []bool{true, false, false}, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = exec.Execute([]compute.Buffer{x, w, s}, nil, 0)
	expectError(t, "donated", err, `parameter "x"`, "donated")
	exec.Finalize()
	_, err = exec.Execute([]compute.Buffer{x, w, s}, nil, 0)
	expectError(t, "finalized program", err, "the program was finalized")

	for config, wants := range map[string][]string{
		"threads=none": {"threads", "none", "at least 1"},
		"threads=0":    {"threads", "at least 1"},
		"isa=sse":      {"isa", "sse", "generic"},
		"speed=9":      {"speed", "threads=N"},
	} {
		_, err := New(config)
		expectError(t, config, err, wants...)
	}

	dead, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	exec = compileConvolution(t, dead)
	dead.Finalize()
	dead.Finalize()
	_, err = exec.Execute(nil, nil, 0)
	expectError(t, "finalized backend", err, "backend was finalized")
	_, err = dead.BufferFromFlatData(0, []float32{1}, shapes.Make(dtypes.Float32, 1))
	expectError(t, "finalized backend", err, "backend was finalized")
	_, err = b.BufferFromFlatData(0, []float64{1}, shapes.Make(dtypes.Float32, 1))
	expectError(t, "wrong values", err, "[]float64", "Float32")
	_, err = b.BufferFromFlatData(0, []float32{1, 2}, shapes.Make(dtypes.Float32, 3))
	expectError(t, "too few values", err, "8 bytes", "12")
}

func expectError(t *testing.T, name string, err error, wants ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: no error", name)
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %q does not say %q", name, err, want)
		}
	}
}

// TestPool runs loops inside loops and at the same time, and counts every index once.
func TestPool(t *testing.T) {
	p := newPool(4)
	defer p.stop()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range 40 {
				counts := make([]int32, n)
				inner := make([]int32, 2*n)
				p.Run(n, func(i, worker int) {
					if worker < 0 || worker >= p.Workers() {
						t.Errorf("worker %d of %d", worker, p.Workers())
					}
					counts[i]++
					p.Run(2, func(j, _ int) { inner[2*i+j]++ })
				})
				for i := range counts {
					if counts[i] != 1 || inner[2*i] != 1 || inner[2*i+1] != 1 {
						t.Errorf("index %d of %d ran %d times, its inner loop %v times", i, n, counts[i], inner[2*i:2*i+2])
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestPoolHandsOver hands over half of what is left of a task whenever somebody waits, and counts every bit of it once.
func TestPoolHandsOver(t *testing.T) {
	for _, eager := range []bool{false, true} {
		p := newPool(3)
		p.eager = eager
		handed := 0
		for n := range 20 {
			const bits = 64
			counts := make([]atomic.Int32, n*bits)
			var pieces atomic.Int64
			var work func(first, end int, l *loop)
			work = func(first, end int, l *loop) {
				for ; first < end; first++ {
					if middle := (first + end + 1) / 2; middle < end && l.wanting() {
						rest := end
						if l.hand(func(int) { work(middle, rest, l) }) {
							pieces.Add(1)
							end = middle
						}
					}
					counts[first].Add(1)
				}
			}
			p.share(n, func(i, _ int, l *loop) { work(i*bits, (i+1)*bits, l) })
			for i := range counts {
				if c := counts[i].Load(); c != 1 {
					t.Fatalf("%d tasks, eager %v: bit %d was done %d times", n, eager, i, c)
				}
			}
			handed += int(pieces.Load())
		}
		if eager && handed == 0 {
			t.Error("nothing was handed over")
		}
		p.stop()
	}
}

// TestDonation updates weights in place: x' = x - g, m' = 2m + x, and k as it is.
func TestDonation(t *testing.T) {
	b := newBackend(t, "")
	shape := shapes.Make(dtypes.Float32, 5000)
	builder := b.Builder("update")
	f := builder.Main()
	var in []compute.Value
	for _, name := range []string{"x", "g", "m", "k"} {
		v, err := f.Parameter(name, shape, nil)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, v)
	}
	x, _ := f.Sub(in[0], in[1])
	m, _ := f.Add(in[2], in[2])
	m, err := f.Add(m, in[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Return([]compute.Value{x, m, in[3], in[3]}, nil); err != nil {
		t.Fatal(err)
	}
	exec, err := builder.Compile()
	if err != nil {
		t.Fatal(err)
	}
	r := rng.New(1, "vec test")
	for _, donate := range [][]bool{nil, {true, false, true, true}, {false, true, true, false}, {true, true, true, true}} {
		for _, twice := range []bool{false, true} { // whether one buffer is two inputs
			var values [4]*input
			var buffers []compute.Buffer
			for i := range values {
				values[i] = randomInput(r, 5000)
				buffers = append(buffers, upload(t, b, values[i]))
			}
			if twice {
				values[2], buffers[2] = values[0], buffers[0]
			}
			before := buffers[2].(*Buffer).mem
			outs, err := exec.Execute(buffers, donate, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 5000 {
				x, g, m, k := values[0].values[i], values[1].values[i], values[2].values[i], values[3].values[i]
				for j, want := range []float32{x - g, m + m + x, k, k} {
					if got := floats(outs[j].(*Buffer).mem)[i]; got != want {
						t.Fatalf("donate %v, twice %v: output %d, element %d: got %g, expected %g", donate, twice, j, i, got, want)
					}
				}
			}
			reused := false
			for j, out := range outs {
				reused = reused || &out.(*Buffer).mem[0] == &before[0]
				for _, other := range outs[:j] {
					if &other.(*Buffer).mem[0] == &out.(*Buffer).mem[0] {
						t.Fatalf("donate %v, twice %v: two outputs share memory", donate, twice)
					}
				}
			}
			if want := donate != nil && donate[2] && !twice; reused != want {
				t.Errorf("donate %v, twice %v: memory of the third input reused: %v, expected %v", donate, twice, reused, want)
			}
			for j, buffer := range buffers {
				if donate != nil && !donate[j] && !(twice && (j == 0 || j == 2)) && !slices.Equal(floats(buffer.(*Buffer).mem), values[j].values) {
					t.Errorf("donate %v, twice %v: input %d was written", donate, twice, j)
				}
			}
		}
	}
}
