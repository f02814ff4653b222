package recipe

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// In float64 the searches that float32 cannot follow are the authors' in every pixel, and so is all that comes after them.
func TestGoldenSearchesInFloat64(t *testing.T) {
	if testing.Short() {
		t.Skip("the Go backend takes seconds for this")
	}
	g, all := goldenMethods(t)
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	done := map[bool]searched{} // ARD and the IADs have one search
	for name, s := range all {
		if chaotic(s) {
			t.Run(name, func(t *testing.T) { testGolden64(t, backend, &g, name, s, done) })
		}
	}
}

// searched is what a search leaves: the images it found and the student with the running statistics it moved.
type searched struct {
	xAdv    *tensors.Tensor
	student []any
}

func testGolden64(t *testing.T, backend compute.Backend, g *goldenSettings, name string, s Settings, done map[bool]searched) {
	o, teachers, pixels, start, labels := goldenObjective(t, g, name, s)
	want := readGolden(t, "method_"+name+".safetensors")
	n := g.Settings.Images
	student := goldenModel(t, g.Settings.Student, "student.")
	params := student.Params()
	batch := func(in []*Node) *classifier.Batch {
		b := &classifier.Batch{Progress: Const(in[0].Graph(), progress)}
		take := func(m *classifier.Model) *classifier.Bound {
			bound := classifier.Bind(m.Network, in[:len(m.State)])
			in = in[len(m.State):]
			return bound
		}
		b.Student = take(student)
		for _, m := range teachers {
			b.Teachers = append(b.Teachers, take(m))
		}
		b.X, b.XAdv, b.Y = in[0], in[1], in[2]
		return b
	}
	run := func(f func([]*Node) []*Node) func(args ...any) []*tensors.Tensor {
		exec, err := NewExec(backend, f)
		if err != nil {
			t.Fatal(err)
		}
		return func(args ...any) []*tensors.Tensor {
			out, err := exec.Call(args...)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	step := run(func(in []*Node) []*Node {
		b := batch(in)
		grad := Gradient(o.Search(b), b.XAdv)[0]
		return append([]*Node{o.Threat.Ascend(b.X, b.XAdv, grad)}, b.Student.Nodes()...)
	})
	outer := run(func(in []*Node) []*Node {
		b := batch(in)
		before := b.Student.Nodes()
		loss := o.Loss(b)
		var trained []*Node
		for i, p := range params {
			if p.Kind.Trainable() {
				trained = append(trained, before[i])
			}
		}
		return append(append([]*Node{loss}, Gradient(loss, trained...)...), b.Student.Nodes()...)
	})

	var frozen []any
	for _, m := range teachers {
		frozen = append(frozen, wide(m)...)
	}
	x, y := nhwc64(pixels, n), tensors.FromFlatDataAndDimensions(labels, n)
	found, again := done[s.Method == "trades"]
	if !again {
		found = searched{nhwc64(start, n), wide(student)}
		for range o.Threat.Steps {
			out := step(slices.Concat(found.student, frozen, []any{x, found.xAdv, y})...)
			found.xAdv = out[0]
			for i := range params {
				found.student[i] = out[1+i]
			}
		}
		done[s.Method == "trades"] = found
	}
	adv := found.xAdv
	got, ref := flat64(adv), flat64(nhwc64(want["x_adv"], n))
	for i := range ref {
		if !(math.Abs(got[i]-ref[i]) <= 1e-6) {
			t.Fatalf("x_adv[%d] is %v, expected %v", i, got[i], ref[i])
		}
	}

	out := outer(slices.Concat(found.student, frozen, []any{x, adv, y})...)
	golden.Near(t, "loss", flat64(out[0]), []float64{g.Methods[name].Loss}, 1e-6)
	out = out[1:]
	for _, p := range params {
		if p.Kind.Trainable() {
			golden.Near(t, "grad."+p.Name, flat64(out[0]), want["grad."+p.Name], 1e-6)
			out = out[1:]
		}
	}
	for i, p := range params {
		if !p.Kind.Trainable() {
			golden.Near(t, "bn."+p.Name, flat64(out[i]), want["bn."+p.Name], 1e-6)
		}
	}
}

// wide is a model's weights in float64.
func wide(m *classifier.Model) []any {
	var out []any
	for _, t := range m.State {
		out = append(out, tensors.FromFlatDataAndDimensions(flat64(t), t.Shape().Dimensions...))
	}
	return out
}

func flat64(t *tensors.Tensor) []float64 {
	if strings.Contains(fmt.Sprint(t.DType()), "64") {
		return tensors.MustCopyFlatData[float64](t)
	}
	var out []float64
	for _, v := range tensors.MustCopyFlatData[float32](t) {
		out = append(out, float64(v))
	}
	return out
}

// nhwc64 reorders colour images of 32x32 laid out N,C,H,W.
func nhwc64(values []float64, n int) *tensors.Tensor {
	out := make([]float64, len(values))
	for i := range values {
		image, channel, pixel := i/3072, i/1024%3, i%1024
		out[(image*1024+pixel)*3+channel] = values[i]
	}
	return tensors.FromFlatDataAndDimensions(out, n, 32, 32, 3)
}
