package conv

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/adaad-go/adaad/internal/kern"
)

// goroutines is a Parallel of its own size, which starts its workers at every Run.
type goroutines int

func (g goroutines) Workers() int { return int(g) }

func (g goroutines) Run(n int, f func(i, worker int)) {
	if g == 1 {
		for i := range n {
			f(i, 0)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range int(g) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i, w)
			}
		})
	}
	wg.Wait()
}

// everySet runs f under every set this machine has, and fails for those that ADAAD_REQUIRE_SETS names and it lacks.
func everySet(t *testing.T, f func(t *testing.T, set *kern.Set)) {
	for name := range strings.SplitSeq(os.Getenv("ADAAD_REQUIRE_SETS"), ",") {
		if name != "" {
			if _, err := kern.Named(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, set := range kern.Sets() {
		t.Run(set.Name(), func(t *testing.T) { f(t, set) })
	}
}

// noise is a fixed sequence of values in [-1, 1).
type noise uint64

func (r *noise) next() float32 {
	*r ^= *r << 13
	*r ^= *r >> 7
	*r ^= *r << 17
	return float32(int32(uint64(*r)>>32)) / (1 << 31)
}

const guard = 37 // odd, so that operands are not aligned either

// guarded is a slice of n values with canaries on both sides.
type guarded struct{ all, v []float32 }

func canary(i int) float32 { return 1e30 + float32(i)*1e27 }

func newGuarded(n int, fill func() float32) guarded {
	all := make([]float32, n+2*guard)
	for i := range all {
		all[i] = canary(i)
	}
	g := guarded{all, all[guard : guard+n : guard+n]}
	for i := range g.v {
		g.v[i] = fill()
	}
	return g
}

func (g guarded) check(t *testing.T, what string) {
	t.Helper()
	for i, v := range g.all {
		if (i < guard || i >= len(g.all)-guard) && v != canary(i) {
			t.Fatalf("%s: wrote outside the operand, at %d of %d", what, i-guard, len(g.v))
		}
	}
}

func nan() float32 { return float32(math.NaN()) }

// taps calls f for every product of the definition: indices into x, dense OIHW w, and y.
func taps(s Shape, f func(x, w, y int)) {
	oh, ow := s.Out()
	ci, co := s.Cin/s.Groups, s.Cout/s.Groups
	for n := range s.N {
		for a := range oh {
			for b := range ow {
				for kh := range s.KH {
					ih := a*s.StrideH + kh*s.DilH - s.PadTop
					if ih < 0 || ih >= s.H {
						continue
					}
					for kw := range s.KW {
						iw := b*s.StrideW + kw*s.DilW - s.PadLeft
						if iw < 0 || iw >= s.W {
							continue
						}
						for o := range s.Cout {
							for i := range ci {
								f(((n*s.H+ih)*s.W+iw)*s.Cin+o/co*ci+i, ((o*ci+i)*s.KH+kh)*s.KW+kw, ((n*oh+a)*ow+b)*s.Cout+o)
							}
						}
					}
				}
			}
		}
	}
}

// tolerance bounds the error of a sum relative to the sum of its terms' magnitudes: 2e-6 where products are summed
// directly. Winograd's transforms spread the rounding of a tile over all of its outputs, those whose own sum is small or
// empty too: there the bound is relative to the largest sum of magnitudes.
//
// Operands rounded to bfloat16 are off by 2⁻⁸ each, so a direct sum is by 2⁻⁷; Winograd's transforms enlarge it.
const (
	directTolerance       = 2e-6
	winogradTolerance     = 3e-6
	directBF16Tolerance   = 7.9e-3
	winogradBF16Tolerance = 2e-2
)

func compare(t *testing.T, what string, got []float32, want, magnitude []float64, tol float64) {
	t.Helper()
	worst, largest := 0.0, 0.0
	if tol == winogradTolerance || tol == winogradBF16Tolerance {
		largest = slices.Max(append(magnitude, 0))
	}
	for i := range want {
		if d := math.Abs(float64(got[i])-want[i]) / (max(largest, magnitude[i]) + 1e-30); !(d <= tol) {
			t.Fatalf("%s[%d] = %v, want %v (off by %.2g of the sum of magnitudes)", what, i, got[i], want[i], d)
		} else {
			worst = max(worst, d)
		}
	}
	if testing.Verbose() {
		t.Logf("%s: largest error %.2g of the sum of magnitudes", what, worst)
	}
}

func identical(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Fatalf("%s[%d] is not the same again: %v and %v", what, i, a[i], b[i])
		}
	}
}

func (k Kernel) at(o, i, kh, kw int) *float32 {
	return &k.Data[k.Base+o*k.SO+i*k.SI+kh*k.SH+kw*k.SW]
}

func square(n, hw, cin, cout, k, stride int) Shape {
	p := (k - 1) / 2
	return Shape{N: n, H: hw, W: hw, Cin: cin, Cout: cout, KH: k, KW: k, StrideH: stride, StrideW: stride,
		PadTop: p, PadBottom: p, PadLeft: p, PadRight: p, DilH: 1, DilW: 1, Groups: 1}
}

func (s Shape) with(f func(*Shape)) Shape { f(&s); return s }

var shapes = []Shape{
	// 3x3, stride 1: whole and broken tiles, whole and broken vectors.
	square(2, 8, 16, 16, 3, 1), square(1, 4, 32, 48, 3, 1), square(3, 5, 8, 24, 3, 1), square(1, 9, 20, 12, 3, 1),
	square(2, 6, 17, 33, 3, 1), square(1, 1, 16, 16, 3, 1), square(1, 2, 64, 64, 3, 1), square(2, 16, 16, 32, 3, 1),
	square(5, 7, 64, 16, 3, 1), square(1, 12, 40, 80, 3, 1), square(13, 4, 96, 64, 3, 1),
	square(2, 7, 16, 16, 3, 1).with(func(s *Shape) { s.PadTop, s.PadBottom, s.PadLeft, s.PadRight = 0, 0, 0, 0 }),
	square(2, 7, 16, 16, 3, 1).with(func(s *Shape) { s.PadTop, s.PadBottom, s.PadLeft, s.PadRight = 2, 1, 0, 2 }),
	square(1, 8, 16, 16, 3, 1).with(func(s *Shape) { s.PadTop, s.PadLeft = 4, 3; s.W = 5 }),
	square(1, 8, 16, 16, 3, 1).with(func(s *Shape) { s.PadTop, s.PadLeft = -1, -2 }),
	// First and last layers, 1x1, strides, odd kernels.
	square(2, 8, 3, 16, 3, 1), square(2, 8, 3, 64, 3, 1), square(1, 9, 1, 6, 5, 1), square(2, 8, 16, 3, 3, 1),
	square(2, 8, 16, 32, 3, 2), square(2, 7, 16, 32, 3, 2), square(2, 8, 16, 32, 1, 2), square(2, 7, 24, 17, 1, 1),
	square(3, 4, 64, 10, 1, 1), square(2, 9, 32, 64, 5, 2), square(1, 11, 5, 7, 7, 3), square(1, 14, 3, 16, 7, 2),
	square(2, 6, 130, 70, 1, 1), square(1, 6, 150, 40, 3, 2), square(1, 4, 272, 144, 3, 1), square(1, 7, 184, 160, 3, 1), square(2, 6, 192, 160, 3, 1),
	{N: 2, H: 7, W: 10, Cin: 6, Cout: 9, KH: 2, KW: 3, StrideH: 2, StrideW: 1, PadTop: 1, PadRight: 2, DilH: 2, DilW: 3, Groups: 1},
	{N: 1, H: 9, W: 5, Cin: 4, Cout: 8, KH: 4, KW: 2, StrideH: 3, StrideW: 2, PadTop: 3, PadLeft: 2, DilH: 1, DilW: 2, Groups: 1},
	{N: 1, H: 3, W: 3, Cin: 4, Cout: 4, KH: 5, KW: 5, StrideH: 1, StrideW: 1, DilH: 1, DilW: 1, Groups: 1}, // no output
	square(2, 40, 3, 16, 3, 1), square(2, 9, 3, 10, 3, 2), square(1, 13, 1, 8, 4, 3).with(func(s *Shape) { s.DilH = 2; s.PadTop, s.PadLeft = 5, 6 }),
	square(1, 9, 2, 8, 3, 1).with(func(s *Shape) { s.PadTop, s.PadLeft, s.PadRight = -2, -1, -3 }), square(1, 40, 4, 8, 8, 1),
	square(1, 6, 3, 16, 3, 1).with(func(s *Shape) { s.PadTop, s.PadBottom, s.PadLeft, s.PadRight = 7, 0, 9, 0 }),
	// 3x3, stride 2: whole and broken tiles, one and more of them, and vectors.
	square(3, 14, 8, 16, 3, 2), square(1, 16, 24, 40, 3, 2), square(2, 32, 16, 16, 3, 2), square(1, 22, 32, 64, 3, 2),
	square(13, 8, 48, 32, 3, 2), square(1, 30, 64, 16, 3, 2).with(func(s *Shape) { s.W = 14 }), square(1, 8, 96, 128, 3, 2),
	square(2, 16, 32, 8, 3, 2).with(func(s *Shape) { s.PadBottom, s.PadRight = 0, 0; s.H = 24 }),
	// So many channels and tiles that the kernel's gradient is summed by planes, in two batches.
	square(130, 3, 80, 96, 3, 1),
	// Groups and depthwise.
	square(2, 8, 16, 32, 3, 1).with(func(s *Shape) { s.Groups = 4 }),
	square(1, 7, 64, 64, 3, 2).with(func(s *Shape) { s.Groups = 2 }),
	square(2, 8, 16, 16, 3, 1).with(func(s *Shape) { s.Groups = 16 }),
	square(2, 8, 40, 40, 3, 2).with(func(s *Shape) { s.Groups = 40 }),
	square(1, 7, 19, 19, 3, 1).with(func(s *Shape) { s.Groups = 19 }),
	square(1, 7, 33, 33, 3, 2).with(func(s *Shape) { s.Groups = 33 }),
	square(1, 1, 24, 24, 3, 1).with(func(s *Shape) { s.Groups = 24 }),
	square(1, 2, 24, 24, 3, 2).with(func(s *Shape) { s.Groups = 24 }),
	square(2, 9, 12, 12, 5, 1).with(func(s *Shape) { s.Groups = 12 }),
	square(1, 6, 8, 24, 3, 1).with(func(s *Shape) { s.Groups = 8 }),
	square(1, 9, 16, 16, 3, 1).with(func(s *Shape) { s.Groups = 16; s.DilH, s.DilW = 2, 2; s.PadLeft = 0 }),
}

func (s Shape) String() string {
	text := fmt.Sprintf("%dx%dx%dx%d-%d_k%dx%d_s%d%d_p%d,%d,%d,%d_d%d%d_g%d", s.N, s.H, s.W, s.Cin, s.Cout, s.KH, s.KW,
		s.StrideH, s.StrideW, s.PadTop, s.PadBottom, s.PadLeft, s.PadRight, s.DilH, s.DilW, s.Groups)
	if s.BF16 {
		text += "_bf16"
	}
	return text
}

// layouts are views of weights of one shape: OIHW, GoMLX's HWIO, and a reversed kernel in OHWI.
func layouts(s Shape) []Kernel {
	ci := s.Cin / s.Groups
	return []Kernel{
		{SO: ci * s.KH * s.KW, SI: s.KH * s.KW, SH: s.KW, SW: 1},
		{SH: s.KW * ci * s.Cout, SW: ci * s.Cout, SI: s.Cout, SO: 1},
		{Base: (s.KH*s.KW - 1) * ci, SO: s.KH * s.KW * ci, SH: -s.KW * ci, SW: -ci, SI: 1},
	}
}

func TestConvolutions(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		for n, s := range shapes {
			t.Run(s.String(), func(t *testing.T) { testShape(t, s, set, layouts(s)[n%3]) })
		}
	})
}

// However little of its last tiles is inside, an output is right: those of up to 9x9, few of which a plan would take.
func TestPhasesOfAnySize(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		for h := 1; h <= 9; h++ {
			for w := 1; w <= 9; w++ {
				s := square(2, 2*h, 2*set.Lanes(), set.Lanes(), 3, 2).with(func(s *Shape) { s.W = 2 * w })
				for _, s := range precisions(s, set) {
					testPlan(t, set, layouts(s)[(h+w)%3], func(tasks int) *Plan {
						p := NewPlan(s, set, tasks)
						p.phasesForward, p.phasesInput = newPhases(s, set, p.zeros, tasks, false), newPhases(s, set, p.zeros, tasks, true)
						if p.phasesForward == nil || p.phasesInput == nil {
							t.Fatalf("no phases for %s", s)
						}
						p.packForward, p.packInput = nil, nil
						p.layOut()
						return p
					})
				}
			}
		}
	})
}

// What is left out at an edge is zero: the results are right, and to the bit those of an image with zeros around it.
func TestEdges(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		rnd := noise(7)
		draw := func(n int) []float32 { return newGuarded(n, rnd.next).v }
		sizes := []int{1, 2, 3, 4, 7}
		for _, h := range sizes {
			for _, w := range sizes {
				s := square(2, 2*h, 136, 132, 3, 2).with(func(s *Shape) { s.W = 2 * w })
				gathers := func(s Shape, tasks int) *Plan {
					p := NewPlan(s, set, tasks)
					p.phasesForward, p.phasesInput, p.packForward, p.packInput = nil, nil, nil, nil
					p.layOut()
					return p
				}
				p := gathers(s, Tasks)
				want := edge{0, 0}
				if min(h, w) == 7 { // too large to save a tenth
					want = noEdge
				}
				if p.forward.edge != want || p.input[3].edge != (edge{h - 1, w - 1}) {
					t.Fatalf("%s has edges %v and %v", s, p.forward.edge, p.input[3].edge)
				}
				testPlan(t, set, layouts(s)[(h+w)%3], func(tasks int) *Plan { return gathers(s, tasks) })

				k := layouts(s)[1]
				k.Data = draw(9 * s.Cin * s.Cout)
				around := s.with(func(s *Shape) { s.H, s.W, s.PadTop, s.PadLeft, s.PadBottom, s.PadRight = s.H+1, s.W+1, 0, 0, 0, 0 })
				x, wide := draw(s.N*s.H*s.W*s.Cin), make([]float32, around.N*around.H*around.W*s.Cin)
				for i := range s.N * s.H {
					row := s.W * s.Cin
					copy(wide[((i/s.H*around.H+i%s.H+1)*around.W+1)*s.Cin:], x[i*row:][:row])
				}
				y, same := make([]float32, s.N*h*w*s.Cout), make([]float32, s.N*h*w*s.Cout)
				p.Forward(goroutines(2), y, x, packed(p, k), Epilogue{})
				q := gathers(around, Tasks)
				if q.forward.edge != noEdge {
					t.Fatalf("%s has an edge", around)
				}
				q.Forward(goroutines(2), same, wide, packed(q, k), Epilogue{})
				identical(t, "y", y, same)
			}
		}
	})
}

func packed(p *Plan, k Kernel) []float32 {
	w := make([]float32, p.PackedSize())
	p.Pack(goroutines(1), w, k)
	return w
}

// An image has the same bits alone, where its channels are shared out, and at every place of a batch.
func TestPhasesByImages(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		rnd := noise(6)
		draw := func(n int) []float32 { return newGuarded(n, rnd.next).v }
		for _, s := range append(precisions(square(7, 8, 32, 128, 3, 2), set), precisions(square(7, 8, 128, 128, 3, 2), set)...) {
			channels := s.Cin
			one := s.with(func(s *Shape) { s.N = 1 })
			batch, alone := NewPlan(s, set, Tasks), NewPlan(one, set, Tasks)
			if alone.phasesForward == nil || (alone.phasesForward.cols < 128) != (channels == 128) {
				t.Fatalf("%s is not computed as it was", one)
			}
			x, y := draw(7*64*channels), make([]float32, 7*16*128)
			k := layouts(s)[1]
			k.Data = draw(9 * channels * 128)
			forward, backward := make([]float32, batch.PackedSize()), make([]float32, batch.PackedInputSize())
			batch.Pack(goroutines(1), forward, k)
			batch.PackInput(goroutines(1), backward, k)
			batch.Forward(goroutines(1), y, x, forward, Epilogue{})
			dx, again := make([]float32, len(x)), make([]float32, len(x))
			batch.GradInput(goroutines(1), dx, y, backward, nil)
			yAgain := make([]float32, len(y))
			for i := range 7 {
				a, b := i*64*channels, i*16*128
				alone.Forward(goroutines(2), yAgain[b:][:16*128], x[a:][:64*channels], forward, Epilogue{})
				alone.GradInput(goroutines(2), again[a:][:64*channels], y[b:][:16*128], backward, nil)
			}
			identical(t, "y", y, yAgain)
			identical(t, "dx", dx, again)
		}
	})
}

// some is so many numbers.
func (r *noise) some(count int) []float32 {
	x := make([]float32, count)
	for i := range x {
		x[i] = r.next()
	}
	return x
}

// Weights that were packed for the other direction are the same numbers: not a bit changes.
func TestOnePackingServesBothDirections(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		for _, s := range precisions(square(2, 6, 256, 256, 3, 1), set) {
			testOnePacking(t, set, s)
		}
	})
}

func testOnePacking(t *testing.T, set *kern.Set, s Shape) {
	rnd := noise(5)
	k := layouts(s)[0]
	k.Data = rnd.some(9 * s.Cin * s.Cout)
	dy, one, two := rnd.some(s.N*s.H*s.W*s.Cout), make([]float32, s.N*s.H*s.W*s.Cin), make([]float32, s.N*s.H*s.W*s.Cin)
	plan := NewPlan(s, set, Tasks)
	if !plan.OnePacking() {
		t.Fatal("so many weights are packed twice")
	}
	w := make([]float32, plan.PackedSize())
	plan.Pack(goroutines(2), w, k)
	plan.GradInput(goroutines(2), one, dy, w, nil)

	apart := NewPlan(s, set, Tasks)
	apart.winogradInput.borrows = false
	apart.packForward, apart.packInput = nil, nil
	apart.layOut()
	w = make([]float32, apart.PackedInputSize())
	apart.PackInput(goroutines(2), w, k)
	apart.GradInput(goroutines(2), two, dy, w, nil)
	identical(t, "dx", one, two)
}

// A few tiles are multiplied with weights that are transformed on the way, many with weights that were: an image has the same bits.
func TestFewTilesOfWideLayers(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		var shapes []Shape
		for _, size := range []int{3, 4, 7, 8} { // one tile and four
			shapes = append(shapes, precisions(square(9, size, 304, 176, 3, 1), set)...)
		}
		for _, s := range shapes {
			rnd, size := noise(s.H), s.H
			k := layouts(s)[0]
			k.Data = rnd.some(9 * s.Cin * s.Cout)
			in, out := size*size*s.Cin, size*size*s.Cout
			x, dy := rnd.some(s.N*in), rnd.some(s.N*out)
			run := func(images int) (y, dx []float32) {
				s := s
				s.N = images
				plan := NewPlan(s, set, Tasks)
				if f := plan.winogradForward; f == nil || !f.late() && !s.BF16 {
					t.Fatal("the weights are not transformed late")
				}
				w := make([]float32, plan.PackedSize())
				plan.Pack(goroutines(2), w, k)
				y, dx = make([]float32, images*out), make([]float32, images*in)
				plan.Forward(goroutines(2), y, x[:images*in], w, Epilogue{})
				w = make([]float32, plan.PackedInputSize())
				plan.PackInput(goroutines(2), w, k)
				plan.GradInput(goroutines(2), dx, dy[:images*out], w, nil)
				return y, dx
			}
			y, dx := run(s.N)
			one, few := run(1)
			identical(t, "y", one, y[:out])
			identical(t, "dx", few, dx[:in])
		}
	})
}

// What bfloat16 changes in the results of layers of normal weights behind a ReLU, in the root mean square: direct products no more than
// the rounding of their operands does, Winograd's a few times as much.
func TestBF16Error(t *testing.T) {
	sets := kern.Sets()
	set := sets[slices.IndexFunc(sets, func(s *kern.Set) bool { return s.BF16() != nil })] // pure Go, if no other
	rnd := noise(3)
	normal := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			for range 12 {
				x[i] += rnd.next() / 2
			}
		}
		return x
	}
	for _, c := range []struct {
		s    Shape
		most float64
	}{{square(2, 16, 64, 64, 1, 1), 0.003}, {square(1, 32, 64, 64, 3, 1), 0.013}, {square(2, 4, 512, 512, 3, 1), 0.013}, {square(1, 32, 64, 128, 3, 2), 0.009}} {
		oh, ow := c.s.Out()
		x, k := normal(c.s.N*c.s.H*c.s.W*c.s.Cin), layouts(c.s)[0]
		for i := range x {
			x[i] = max(0, x[i])
		}
		k.Data = normal(c.s.KH * c.s.KW * c.s.Cin * c.s.Cout)
		var y [2][]float32
		for i, s := range precisions(c.s, set) {
			p := NewPlan(s, set, Tasks)
			y[i] = make([]float32, s.N*oh*ow*s.Cout)
			p.Forward(goroutines(2), y[i], x, packed(p, k), Epilogue{})
		}
		var off, all float64
		for i, v := range y[0] {
			off += math.Pow(float64(y[1][i]-v), 2)
			all += math.Pow(float64(v), 2)
		}
		off = math.Sqrt(off / all)
		t.Logf("%s: %.4f", c.s, off)
		if !(off > 0 && off < c.most) {
			t.Errorf("%s: off by %g in bfloat16, expected at most %g", c.s, off, c.most)
		}
	}
}

// Small shapes of all kinds, drawn so that every algorithm meets every border.
func TestRandomConvolutions(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		rnd := noise(2024)
		draw := func(lo, hi int) int { return lo + int(uint32(math.Float32bits(rnd.next()))>>3)%(hi-lo+1) }
		for i := range 90 {
			s := Shape{N: draw(1, 3), H: draw(1, 11), W: draw(1, 11), KH: draw(1, 4), KW: draw(1, 4), StrideH: draw(1, 3), StrideW: draw(1, 3),
				PadTop: draw(-1, 3), PadBottom: draw(-1, 3), PadLeft: draw(-1, 3), PadRight: draw(-1, 3), DilH: draw(1, 2), DilW: draw(1, 2), Groups: 1}
			switch draw(0, 6) {
			case 0: // few channels
				s.Cin, s.Cout = draw(1, 4), draw(1, 40)
			case 1: // depthwise
				s.Cin = draw(1, 40)
				s.Cout, s.Groups = s.Cin, s.Cin
			case 2: // groups
				s.Groups = draw(2, 3)
				s.Cin, s.Cout = s.Groups*draw(1, 9), s.Groups*draw(1, 20)
			case 3: // Winograd
				s.KH, s.KW, s.StrideH, s.StrideW, s.DilH, s.DilW = 3, 3, 1, 1, 1, 1
				s.Cin, s.Cout = 8*draw(1, 6), 8*draw(1, 6)
			case 4: // and on phases
				s = square(draw(1, 3), 2*draw(1, 9), 8*draw(1, 6), 8*draw(1, 6), 3, 2)
				s.W = 2 * draw(1, 9)
			default:
				s.Cin, s.Cout = draw(5, 40), draw(1, 40)
			}
			t.Run(s.String(), func(t *testing.T) { testShape(t, s, set, layouts(s)[i%3]) })
		}
	})
}

func testShape(t *testing.T, s Shape, set *kern.Set, k Kernel) {
	for _, s := range precisions(s, set) {
		testPlan(t, set, k, func(tasks int) *Plan { return NewPlan(s, set, tasks) })
	}
}

// precisions is a shape in float32 and, if the set has it, in bfloat16, which pure Go is slow at.
func precisions(s Shape, set *kern.Set) []Shape {
	if set.BF16() == nil || set.Name() == "generic" && testing.Short() {
		return []Shape{s}
	}
	return []Shape{s, s.with(func(s *Shape) { s.BF16 = true })}
}

// testPlan compares what plans of a shape compute with the definition, and one with another: they differ in the least
// number of tasks.
func testPlan(t *testing.T, set *kern.Set, k Kernel, newPlan func(tasks int) *Plan) {
	plan, alone := newPlan(Tasks), newPlan(1)
	s := plan.Shape()
	rnd := noise(99)
	oh, ow := s.Out()
	ci := s.Cin / s.Groups
	size := s.Cout * ci * s.KH * s.KW
	x := newGuarded(s.N*s.H*s.W*s.Cin, rnd.next)
	dy := newGuarded(s.N*oh*ow*s.Cout, rnd.next)
	bias := newGuarded(s.Cout, rnd.next)
	residual := newGuarded(len(dy.v), rnd.next)
	gate := newGuarded(len(x.v), func() float32 { return max(0, rnd.next()) })
	mask := make([]uint16, s.N*s.H*s.W*kern.MaskWords(s.Cin))
	set.Positive(mask, gate.v, s.N*s.H*s.W, s.Cin)
	kd := newGuarded(size, rnd.next)
	k.Data = kd.v
	w := make([]float64, size)
	for o := range s.Cout {
		for i := range ci {
			for kh := range s.KH {
				for kw := range s.KW {
					w[((o*ci+i)*s.KH+kh)*s.KW+kw] = float64(*k.at(o, i, kh, kw))
				}
			}
		}
	}
	y, ym := make([]float64, len(dy.v)), make([]float64, len(dy.v))
	dx, dxm := make([]float64, len(x.v)), make([]float64, len(x.v))
	dw, dwm := make([]float64, size), make([]float64, size)
	taps(s, func(a, b, c int) {
		p, q, r := float64(x.v[a])*w[b], float64(dy.v[c])*w[b], float64(x.v[a])*float64(dy.v[c])
		y[c] += p
		ym[c] += math.Abs(p)
		dx[a] += q
		dxm[a] += math.Abs(q)
		dw[b] += r
		dwm[b] += math.Abs(r)
	})
	tol, kernelTol := directTolerance, directTolerance
	if s.KH == 3 && s.KW == 3 && s.StrideH == 1 && s.StrideW == 1 && s.DilH == 1 && s.DilW == 1 && s.Groups == 1 {
		tol, kernelTol = winogradTolerance, winogradTolerance
	}
	if plan.phasesForward != nil {
		tol = winogradTolerance
	}
	if s.BF16 && tol == winogradTolerance {
		tol = winogradBF16Tolerance
	} else if s.BF16 {
		tol = directBF16Tolerance
	}

	other := k
	other.Data = make([]float32, size)
	packed := newGuarded(plan.PackedSize(), nan)
	plan.Pack(goroutines(1), packed.v, other)
	plan.Pack(goroutines(2), packed.v, k)
	packed.check(t, "Pack")
	for _, e := range []Epilogue{{}, {Bias: bias.v}, {Bias: bias.v, Residual: residual.v, ReLU: true}, {Residual: residual.v}, {ReLU: true}} {
		want, mag := make([]float64, len(y)), make([]float64, len(y))
		for i := range y {
			want[i], mag[i] = y[i], ym[i]
			if e.Bias != nil {
				want[i] += float64(bias.v[i%s.Cout])
				mag[i] += math.Abs(float64(bias.v[i%s.Cout]))
			}
			if e.Residual != nil {
				want[i] += float64(residual.v[i])
				mag[i] += math.Abs(float64(residual.v[i]))
			}
			if e.ReLU {
				want[i] = max(0, want[i])
			}
		}
		got := newGuarded(len(y), nan)
		plan.Forward(goroutines(1), got.v, x.v, packed.v, e)
		got.check(t, "Forward")
		compare(t, "y", got.v, want, mag, tol)
		again := newGuarded(len(y), nan)
		plan.Forward(goroutines(3), again.v, x.v, packed.v, e)
		identical(t, "y", got.v, again.v)
		alone.Forward(goroutines(1), again.v, x.v, packed.v, e)
		identical(t, "y by one worker", got.v, again.v)
		if e.Residual != nil {
			e.Residual = again.v
			copy(again.v, residual.v)
			plan.Forward(goroutines(1), again.v, x.v, packed.v, e)
			identical(t, "y in place", got.v, again.v)
		}
	}

	packed = newGuarded(plan.PackedInputSize(), nan)
	plan.PackInput(goroutines(2), packed.v, other)
	plan.PackInput(goroutines(1), packed.v, k)
	packed.check(t, "PackInput")
	added := newGuarded(len(dx), rnd.next)
	for mode := range 4 {
		var add []float32
		var m []uint16
		want, mag := append([]float64(nil), dx...), append([]float64(nil), dxm...)
		if mode&2 != 0 {
			add = added.v
			for i, v := range add {
				want[i] += float64(v)
				mag[i] += math.Abs(float64(v))
			}
		}
		if mode&1 != 0 {
			m = mask
			for i, v := range gate.v {
				if v == 0 {
					want[i] = 0
				}
			}
		}
		got := newGuarded(len(dx), nan)
		if add == nil {
			plan.GradInput(goroutines(1), got.v, dy.v, packed.v, m)
		} else {
			plan.GradInputAdd(goroutines(1), got.v, dy.v, packed.v, add, m)
		}
		got.check(t, "GradInput")
		compare(t, "dx", got.v, want, mag, tol)
		again := newGuarded(len(dx), nan)
		if add != nil {
			copy(again.v, add)
			add = again.v
		}
		plan.GradInputAdd(goroutines(3), again.v, dy.v, packed.v, add, m)
		identical(t, "dx", got.v, again.v)
		if add != nil {
			copy(add, added.v)
		}
		alone.GradInputAdd(goroutines(1), again.v, dy.v, packed.v, add, m)
		identical(t, "dx by one worker", got.v, again.v)
	}

	got, again := newGuarded(size, nan), newGuarded(size, nan)
	dst := k
	dst.Data = got.v
	plan.GradKernel(goroutines(1), dst, x.v, dy.v)
	got.check(t, "GradKernel")
	dense := make([]float32, size)
	for o := range s.Cout {
		for i := range ci {
			for kh := range s.KH {
				for kw := range s.KW {
					dense[((o*ci+i)*s.KH+kh)*s.KW+kw] = *dst.at(o, i, kh, kw)
				}
			}
		}
	}
	compare(t, "dw", dense, dw, dwm, kernelTol)
	dst.Data = again.v
	plan.GradKernel(goroutines(3), dst, x.v, dy.v)
	identical(t, "dw", got.v, again.v)

	for what, g := range map[string]guarded{"x": x, "dy": dy, "bias": bias, "residual": residual, "w": kd} {
		g.check(t, what)
	}
}

func TestOutputSize(t *testing.T) {
	for _, c := range []struct{ size, k, stride, dil, pad, want int }{
		{32, 3, 1, 1, 2, 32}, {32, 3, 2, 1, 2, 16}, {7, 3, 2, 1, 2, 4}, {8, 1, 2, 1, 0, 4}, {5, 3, 1, 2, 0, 1}, {4, 3, 1, 2, 0, 0}, {1, 9, 1, 1, 0, 0},
	} {
		if got := outSize(c.size, c.k, c.stride, c.dil, c.pad); got != c.want {
			t.Errorf("outSize(%v) = %d", c, got)
		}
	}
}

func TestGemm(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		rnd := noise(7)
		for _, d := range [][3]int{{1, 1, 1}, {1, 10, 64}, {5, 3, 2}, {12, 32, 16}, {13, 33, 17}, {32, 10, 512}, {25, 49, 0}, {7, 16, 300},
			{64, 100, 33}, {100, 64, 700}, {3, 600, 40}, {150, 17, 1100}, {1, 10, 1280}, {2, 130, 2100}} {
			m, n, k := d[0], d[1], d[2]
			a, b := newGuarded(m*k, rnd.next), newGuarded(k*n, rnd.next)
			for layout := range 4 {
				ma, mb := Matrix{a.v, k, 1}, Matrix{b.v, n, 1}
				if layout&1 != 0 {
					ma = Matrix{a.v, 1, m}
				}
				if layout&2 != 0 {
					mb = Matrix{b.v, 1, k}
				}
				want, mag := make([]float64, m*n), make([]float64, m*n)
				for i := range m {
					for j := range n {
						for l := range k {
							p := float64(ma.Data[i*ma.Rows+l*ma.Cols]) * float64(mb.Data[l*mb.Rows+j*mb.Cols])
							want[i*n+j] += p
							mag[i*n+j] += math.Abs(p)
						}
					}
				}
				c, again := newGuarded(m*n, nan), newGuarded(m*n, nan)
				Gemm(goroutines(1), set, m, n, k, ma, mb, c.v)
				c.check(t, "c")
				compare(t, fmt.Sprintf("c%v layout %d", d, layout), c.v, want, mag, directTolerance)
				Gemm(goroutines(3), set, m, n, k, ma, mb, again.v)
				identical(t, "c", c.v, again.v)
				// A row does not depend on the others.
				last := newGuarded(n, nan)
				Gemm(goroutines(1), set, 1, n, k, Matrix{ma.Data[min(len(ma.Data), (m-1)*ma.Rows):], ma.Rows, ma.Cols}, mb, last.v)
				last.check(t, "a row of c")
				identical(t, "a row of c", c.v[(m-1)*n:], last.v)
			}
		}
	})
}

// BenchmarkGemm prints GFLOP/s of products such as dense layers make.
func BenchmarkGemm(b *testing.B) {
	for _, set := range kern.Sets() {
		for _, d := range [][3]int{{32, 10, 512}, {128, 100, 640}, {256, 1024, 1024}, {1024, 1024, 1024}} {
			m, n, k := d[0], d[1], d[2]
			rnd := noise(1)
			x, y, z := newGuarded(m*k, rnd.next).v, newGuarded(n*k, rnd.next).v, make([]float32, m*n)
			for what, mb := range map[string]Matrix{"b": {y, n, 1}, "transposed": {y, 1, k}} {
				b.Run(fmt.Sprintf("%s/%dx%dx%d/%s", set.Name(), m, n, k, what), func(b *testing.B) {
					for b.Loop() {
						Gemm(goroutines(runtime.GOMAXPROCS(0)), set, m, n, k, Matrix{x, k, 1}, mb, z)
					}
					b.ReportMetric(float64(2*m*n*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

// benchShapes are the convolutions of ResNets of width 16 and 64, and a depthwise pair.
var benchShapes = []Shape{
	square(32, 32, 3, 16, 3, 1), square(32, 32, 3, 64, 3, 1), square(32, 32, 16, 16, 3, 1), square(32, 16, 32, 32, 3, 1), square(32, 8, 64, 64, 3, 1),
	square(32, 32, 64, 64, 3, 1), square(32, 16, 128, 128, 3, 1), square(32, 8, 256, 256, 3, 1), square(32, 4, 512, 512, 3, 1),
	square(32, 32, 16, 32, 3, 2), square(32, 16, 32, 64, 3, 2), square(32, 32, 64, 128, 3, 2), square(32, 16, 128, 256, 3, 2),
	square(32, 8, 256, 512, 3, 2), square(32, 32, 64, 128, 1, 2), square(32, 16, 128, 128, 1, 1),
	square(32, 32, 64, 64, 3, 1).with(func(s *Shape) { s.Groups = 64 }),
	square(32, 32, 64, 64, 3, 2).with(func(s *Shape) { s.Groups = 64 }),
}

// BenchmarkConv prints the effective GFLOP/s of the three directions: those of the definition, whatever the algorithm does.
func BenchmarkConv(b *testing.B) {
	for _, set := range kern.Sets() {
		var list []Shape
		for _, s := range benchShapes {
			list = append(list, precisions(s, set)...)
		}
		for _, s := range list {
			b.Run(set.Name()+"/"+s.String(), func(b *testing.B) {
				rnd := noise(1)
				oh, ow := s.Out()
				fill := func(n int) []float32 { return newGuarded(n, rnd.next).v }
				x, y, w := fill(s.N*s.H*s.W*s.Cin), fill(s.N*oh*ow*s.Cout), fill(s.KH*s.KW*s.Cin/s.Groups*s.Cout)
				dx := fill(len(x))
				bias := fill(s.Cout)
				k := layouts(s)[1]
				k.Data = w
				plan := NewPlan(s, set, Tasks)
				par := goroutines(runtime.GOMAXPROCS(0))
				rate := func(name string, f func()) {
					b.Run(name, func(b *testing.B) {
						f()
						for b.Loop() {
							f()
						}
						b.ReportMetric(s.Flops()*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
					})
				}
				fw, bw := make([]float32, plan.PackedSize()), make([]float32, plan.PackedInputSize())
				plan.Pack(par, fw, k)
				plan.PackInput(par, bw, k)
				rate("forward", func() { plan.Forward(par, y, x, fw, Epilogue{Bias: bias, ReLU: true}) })
				rate("input", func() { plan.GradInput(par, dx, y, bw, nil) })
				rate("kernel", func() { plan.GradKernel(par, k, x, y) })
				b.Run("pack", func(b *testing.B) {
					for b.Loop() {
						plan.Pack(par, fw, k)
					}
				})
			})
		}
	}
}
