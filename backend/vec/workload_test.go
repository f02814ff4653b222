package vec

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/zoo"
)

var (
	profileFlag = flag.Bool("profile", false, "print how long each kind of instruction takes in the workload benchmarks")
	studentFlag = flag.String("student", "resnet20", "student of the workload benchmarks")
	teacherFlag = flag.String("teacher", "resnet20", "teacher of the workload benchmarks")
	batchFlag   = flag.Int("batch", 64, "images of the workload benchmarks")
	precision   = flag.String("precision", "", "precision of the workload benchmarks")
	configFlag  = flag.String("config", "", "backend of the workload benchmarks, as name:configuration; vec if empty")
)

// workload is what training does again and again: search and update, on real networks.
type workload struct {
	backend          compute.Backend
	search, update   *graph.Exec
	student, teacher []*tensors.Tensor
	x, y             *tensors.Tensor
}

func newWorkload(tb testing.TB, backend compute.Backend, student, teacher string, p zoo.Precision, batch int) *workload {
	tb.Helper()
	w := &workload{backend: backend}
	network := func(name string, seed uint64) (classifier.Network, []*tensors.Tensor) {
		net, err := zoo.New(name, 10, [3]int{32, 32, 3})
		if err != nil {
			tb.Fatal(err)
		}
		if net, err = zoo.InPrecision(net, p); err != nil {
			tb.Fatal(err)
		}
		state := zoo.Init(net, seed).State
		for _, t := range state {
			if err := t.MaterializeOnDevice(backend, false, 0); err != nil {
				tb.Fatal(err)
			}
			t.FinalizeLocal()
		}
		return net, state
	}
	s, sState := network(student, 1)
	t, tState := network(teacher, 2)
	w.student, w.teacher = sState, tState
	r := rng.New(1, "vec workload")
	pixels := make([]float32, batch*32*32*3)
	for i := range pixels {
		pixels[i] = r.Float32()
	}
	labels := make([]int32, batch)
	for i := range labels {
		labels[i] = r.Int32N(10)
	}
	w.x = tensors.FromFlatDataAndDimensions(pixels, batch, 32, 32, 3)
	w.y = tensors.FromFlatDataAndDimensions(labels, batch)
	// The search of AdaAD: x' ← clip(x' + α sign ∂KL(T(x') || S(x'))/∂x').
	w.search = graph.MustNewExec(backend, func(in []*graph.Node) []*graph.Node {
		x, clean := in[0], in[1]
		sp := classifier.Bind(s, in[2:2+len(sState)])
		tp := classifier.Bind(t, in[2+len(sState):])
		ls, lt := graph.LogSoftmax(sp.Logits(x, classifier.Eval)), graph.LogSoftmax(tp.Logits(x, classifier.Eval))
		kl := graph.ReduceAllSum(graph.Mul(graph.Exp(lt), graph.Sub(lt, ls)))
		g := graph.Gradient(kl, x)[0]
		next := graph.Add(x, graph.MulScalar(graph.Sign(g), 2./255))
		next = graph.Max(graph.Min(next, graph.AddScalar(clean, 8./255)), graph.AddScalar(clean, -8./255))
		return []*graph.Node{graph.ClipScalar(next, 0, 1)}
	})
	// An update: cross-entropy in train mode, plain SGD.
	params := s.Params()
	w.update = graph.MustNewExec(backend, func(in []*graph.Node) []*graph.Node {
		x, y := in[0], in[1]
		nodes := in[2:]
		b := classifier.Bind(s, nodes)
		l := graph.LogSoftmax(b.Logits(x, classifier.Train))
		loss := graph.Neg(graph.ReduceAllMean(graph.ReduceSum(graph.Mul(l, graph.OneHot(y, 10, dtypes.Float32)), -1)))
		var train []*graph.Node
		for i, p := range params {
			if p.Kind.Trainable() {
				train = append(train, nodes[i])
			}
		}
		grads := graph.Gradient(loss, train...)
		outs := []*graph.Node{loss}
		after := b.Nodes()
		k := 0
		for i, p := range params {
			if p.Kind.Trainable() {
				outs = append(outs, graph.Sub(nodes[i], graph.MulScalar(grads[k], 0.01)))
				k++
			} else {
				outs = append(outs, after[i])
			}
		}
		return outs
	})
	return w
}

func (w *workload) step(tb testing.TB, update bool) []*tensors.Tensor {
	exec, args := w.search, []any{w.x, w.x}
	if update {
		exec, args = w.update, []any{w.x, w.y}
	}
	for _, t := range w.student {
		args = append(args, t)
	}
	if !update {
		for _, t := range w.teacher {
			args = append(args, t)
		}
	}
	outs, err := exec.Call(args...)
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	return outs
}

// Benchmarks of the steps, in images a second: go test -bench Workload [-profile] [-args -student resnet18 ...].
func BenchmarkWorkload(b *testing.B) {
	for _, kind := range []string{"search", "update"} {
		b.Run(kind, func(b *testing.B) {
			var backend compute.Backend
			var err error
			if *configFlag != "" {
				backend, err = compute.NewWithConfig(*configFlag)
			} else {
				backend, err = New("")
			}
			if err != nil {
				b.Fatal(err)
			}
			defer backend.Finalize()
			w := newWorkload(b, backend, *studentFlag, *teacherFlag, zoo.Precision(*precision), *batchFlag)
			for range 2 {
				w.step(b, kind == "update")
			}
			spent, count := map[string]time.Duration{}, map[string]int{}
			if v, ok := backend.(*Backend); ok && *profileFlag {
				v.observe = func(in *instruction, d time.Duration) {
					spent[in.name] += d
					count[in.name]++
				}
			}
			for b.Loop() {
				for _, t := range w.step(b, kind == "update") {
					t.FinalizeAll()
				}
			}
			b.ReportMetric(float64(*batchFlag*b.N)/b.Elapsed().Seconds(), "images/s")
			names := slices.SortedFunc(maps.Keys(spent), func(x, y string) int { return cmp.Compare(spent[y], spent[x]) })
			for _, name := range names[:min(25, len(names))] {
				fmt.Printf("%10.3f ms %6d  %.200s\n", spent[name].Seconds()*1000/float64(b.N), count[name]/b.N, name)
			}
		})
	}
}

// TestNetworks compares the search and the update of real networks with the Go backend.
func TestNetworks(t *testing.T) {
	if testing.Short() {
		t.Skip("the Go backend takes seconds")
	}
	golang, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, "")
	for _, c := range []struct {
		student, teacher string
		batch            int
	}{{"resnet8-w4", "small-cnn", 3}, {"mobilenet-v2", "resnet8-w4", 1}} {
		want := newWorkload(t, golang, c.student, c.teacher, zoo.FP32, c.batch)
		got := newWorkload(t, b, c.student, c.teacher, zoo.FP32, c.batch)
		for _, update := range []bool{false, true} {
			if update && c.batch == 1 {
				continue // batch norm of single pixels is all rounding errors
			}
			w, g := want.step(t, update), got.step(t, update)
			for i := range w {
				x, y := tensors.MustCopyFlatData[float32](w[i]), tensors.MustCopyFlatData[float32](g[i])
				wrong := 0
				scale := 0.0
				for j := range x {
					scale = max(scale, math.Abs(float64(x[j])))
				}
				for j := range x {
					if math.Abs(float64(x[j]-y[j])) > 2e-4*max(scale, 1e-2) {
						wrong++
					}
				}
				// The search takes the sign of gradients that may be zero but for rounding.
				if allowed := len(x) / 500; wrong > allowed || update && wrong > 0 {
					t.Errorf("%s and %s, update %v, output %d: %d of %d elements differ", c.student, c.teacher, update, i, wrong, len(x))
				}
			}
		}
	}
}
