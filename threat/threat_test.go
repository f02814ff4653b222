package threat

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/internal/rng"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]float64{"8/255": 8.0 / 255, "0.031": 0.031, " 16 / 255 ": 16.0 / 255, "0": 0, "1": 1} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v, expected %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "eight", "8/0", "-1/255", "1/-2", "nan", "inf", "8/255/2"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, expected an error", text, got)
		}
	}
	for n := range 256 {
		text := Format(float64(n) / 255)
		if back, err := Parse(text); err != nil || back != float64(n)/255 {
			t.Errorf("%d/255 is written %q and read as %v (%v)", n, text, back, err)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Model{Epsilon: 8.0 / 255, StepSize: 2.0 / 255, Steps: 10}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, m := range map[string]Model{
		"8/255 meant":       {Epsilon: 8, StepSize: 2, Steps: 10},
		"2.5/255 meant":     {Epsilon: 8.0 / 255, StepSize: 2.5, Steps: 10},
		"epsilon is -1":     {Epsilon: -1},
		"epsilon is NaN":    {Epsilon: math.NaN()},
		"steps is -1":       {Epsilon: 1, Steps: -1},
		"step size is 0":    {Epsilon: 1, Steps: 1},
		"step size is -0.1": {Norm: L2, Epsilon: 1, Steps: 1, StepSize: -0.1},
	} {
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error is %v, expected it to say %q", m, err, want)
		}
	}
}

// Steps from anywhere end in the ball and in [0,1]; float32 rounds x + eps, so the ball is met to 1e-6.
func TestAscendStaysInside(t *testing.T) {
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 16, 4 * 4 * 3
	r := rng.New(1, rng.Attack)
	draw := func(scale float64) *tensors.Tensor {
		v := make([]float32, n*size)
		for i := range v {
			v[i] = float32(scale * r.Float64())
		}
		return tensors.FromFlatDataAndDimensions(v, n, 4, 4, 3)
	}
	x, from, direction := draw(1), draw(1.5), draw(1)
	tensors.MustMutableFlatData(direction, func(flat []float32) {
		for i := range flat {
			flat[i] -= 0.5
		}
		flat[0] = 0 // a gradient of 0 moves nothing
	})
	for _, m := range []Model{{Epsilon: 8.0 / 255, StepSize: 2.0 / 255}, {Norm: L2, Epsilon: 0.5, StepSize: 0.1}, {Epsilon: 0, StepSize: 1}} {
		out, err := ExecOnce(backend, func(x, from, g *Node) *Node { return m.Ascend(x, from, g) }, x, from, direction)
		if err != nil {
			t.Fatal(err)
		}
		clean, got := tensors.MustCopyFlatData[float32](x), tensors.MustCopyFlatData[float32](out)
		for i := range n {
			var linf, l2 float64
			for k := i * size; k < (i+1)*size; k++ {
				d := float64(got[k]) - float64(clean[k])
				linf, l2 = max(linf, math.Abs(d)), l2+d*d
				if !(got[k] >= 0 && got[k] <= 1) {
					t.Fatalf("%v: pixel %v is outside [0,1]", m, got[k])
				}
			}
			if distance := map[Norm]float64{Linf: linf, L2: math.Sqrt(l2)}[m.Norm]; distance > m.Epsilon+1e-6 {
				t.Errorf("%v: image %d ends at distance %v", m, i, distance)
			}
		}
	}
}

// One step inside the ball has the length that was asked for, along the gradient (L2) or its sign (Linf).
func TestAscendTakesTheStep(t *testing.T) {
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	x := tensors.FromFlatDataAndDimensions([]float32{0.5, 0.5, 0.5}, 1, 1, 1, 3)
	g := tensors.FromFlatDataAndDimensions([]float32{3e-9, 0, -4e-9}, 1, 1, 1, 3)
	for _, c := range []struct {
		m    Model
		want [3]float64
	}{
		{Model{Epsilon: 0.1, StepSize: 0.02}, [3]float64{0.52, 0.5, 0.48}},
		{Model{Norm: L2, Epsilon: 0.1, StepSize: 0.05}, [3]float64{0.53, 0.5, 0.46}},
		{Model{Norm: L2, Epsilon: 0.05, StepSize: 0.5}, [3]float64{0.53, 0.5, 0.46}},
	} {
		out, err := ExecOnce(backend, func(x, g *Node) *Node { return c.m.Ascend(x, x, g) }, x, g)
		if err != nil {
			t.Fatal(err)
		}
		for k, got := range tensors.MustCopyFlatData[float32](out) {
			// 1e-4: the L2 norm adds 1e-12 to a gradient of 5e-9.
			if math.Abs(float64(got)-c.want[k]) > 1e-4 {
				t.Errorf("%v: value %d is %v, expected %v", c.m, k, got, c.want[k])
			}
		}
	}
}

// The size of a perturbation is its norm, and 0 where there is none.
func TestSize(t *testing.T) {
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	x := [][][][]float32{{{{0.5}, {0.25}}}, {{{1}, {0}}}}
	xAdv := [][][][]float32{{{{0.75}, {-0.5}}}, {{{1}, {0}}}}
	for norm, want := range map[Norm][]float32{Linf: {0.75, 0}, L2: {float32(math.Sqrt(0.625)), 0}} {
		out, err := ExecOnceN(backend, func(x, xAdv *Node) []*Node {
			return []*Node{Model{Norm: norm}.Size(x, xAdv)}
		}, x, xAdv)
		if err != nil {
			t.Fatal(err)
		}
		got := tensors.MustCopyFlatData[float32](out[0])
		for i := range want {
			if math.Abs(float64(got[i]-want[i])) > 1e-6 {
				t.Errorf("%v size of perturbation %d is %g, want %g", norm, i, got[i], want[i])
			}
		}
	}
}

func TestClipStart(t *testing.T) {
	x := []float32{0, 1, 0, 1, 0, 1, 0.5, 0.5}
	for _, clip := range []bool{false, true} {
		start := make([]float32, len(x))
		Model{Start: Uniform, Epsilon: 0.4, ClipStart: clip}.Begin(rng.New(1, rng.Attack), x, start)
		outside := 0
		for _, v := range start {
			if v < 0 || v > 1 {
				outside++
			}
		}
		if clip != (outside == 0) {
			t.Errorf("clip %v: %d of %d values start outside [0,1]: %v", clip, outside, len(x), start)
		}
	}
}

func TestOffsets(t *testing.T) {
	const n = 3072
	offset := make([]float32, n)
	moments := func(m Model) (largest, norm float64) {
		m.Begin(rng.New(3, rng.Attack), make([]float32, n), offset)
		for _, v := range offset {
			largest, norm = max(largest, math.Abs(float64(v))), norm+float64(v)*float64(v)
		}
		return largest, math.Sqrt(norm)
	}
	if largest, _ := moments(Model{Epsilon: 0.1}); largest != 0 {
		t.Errorf("a start at the image is off by %v", largest)
	}
	// The norm of n draws is their standard deviation times √n, to about 1/√(2n) of that; 5% is four of those.
	for _, c := range []struct {
		m         Model
		norm, top float64
	}{
		{Model{Start: Gaussian, Epsilon: 0.1}, 0.001 * math.Sqrt(n), 0.006},
		{Model{Start: Uniform, Epsilon: 0.1}, 0.1 / math.Sqrt(3) * math.Sqrt(n), 0.1},
	} {
		largest, norm := moments(c.m)
		if math.Abs(norm/c.norm-1) > 0.05 || largest > c.top {
			t.Errorf("%v: norm %v and largest %v, expected about %v and at most %v", c.m, norm, largest, c.norm, c.top)
		}
	}
	if _, norm := moments(Model{Start: Uniform, Norm: L2, Epsilon: 0.5}); norm > 0.5 || norm < 0.45 {
		t.Errorf("a uniform point of a ball of %d dimensions lies near its surface of 0.5, this one at %v", n, norm)
	}
}

// The geometry of single images is that of the graphs: the same bits for Linf, and up to rounding for L2.
func TestPointsMoveAsInGraphs(t *testing.T) {
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	r := rng.New(0, rng.Attack)
	const n, size = 8, 4 * 4 * 3
	x, adv, grad := make([]float32, n*size), make([]float32, n*size), make([]float32, n*size)
	for i := range x {
		x[i] = r.Float32()
		adv[i] = x[i] + float32(r.NormFloat64()*0.05)
		if r.IntN(5) > 0 {
			grad[i] = float32(r.NormFloat64())
		}
	}
	tensor := func(v []float32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(v, n, 4, 4, 3) }
	for norm, slack := range map[Norm]float64{Linf: 0, L2: 1e-6} {
		for _, eps := range []float64{0, 2. / 255, 0.1, 0.5} {
			m := Model{Norm: norm, Epsilon: eps, StepSize: 0.03}
			want, err := tensors.CopyFlatData[float32](MustExecOnce(backend, m.Ascend, tensor(x), tensor(adv), tensor(grad)))
			if err != nil {
				t.Fatal(err)
			}
			for from := 0; from < n*size; from += size {
				clean, got := x[from:from+size], slices.Clone(adv[from:from+size])
				norm.AscendPoint(got, grad[from:from+size], m.StepSize)
				norm.ProjectPoint(clean, got, eps)
				offset := make([]float32, size)
				for i, v := range got {
					offset[i] = v - clean[i]
					if d := math.Abs(float64(v - want[from+i])); d > slack {
						t.Errorf("%s eps %g: value %d is %g, in a graph %g", norm, eps, from+i, v, want[from+i])
					}
				}
				far := norm.Distance(got, clean)
				if far > eps+1e-6 {
					t.Errorf("%s eps %g: an image is moved by %g", norm, eps, far)
				}
				if length := norm.Length(offset); math.Abs(length-far) > 1e-6 {
					t.Errorf("%s: the offset's length is %g, the distance %g", norm, length, far)
				}
			}
		}
	}
}
