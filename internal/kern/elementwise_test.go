package kern

import (
	"math"
	"testing"
)

// edges are values whose comparisons and signs are easily got wrong.
var edges = []float32{0, float32(math.Copysign(0, -1)), 1, -1, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 1e-45, -1e-45, 3e38}

func TestElementwise(t *testing.T) {
	generic := sets[len(sets)-1]
	// The pure Go set is the reference: its functions of single numbers are the definitions.
	everySet(t, func(t *testing.T, s *Set) {
		rnd := noise(21)
		binary := map[string]func(s *Set, dst, a, b []float32){
			"Add": (*Set).Add, "Sub": (*Set).Sub, "Mul": (*Set).Mul, "Div": (*Set).Div, "Max": (*Set).Max, "Min": (*Set).Min,
			"Gate": (*Set).Gate, "Above": (*Set).Above, "Equal": (*Set).Equal, "Less": (*Set).Less, "LessEqual": (*Set).LessEqual, "NotEqual": (*Set).NotEqual,
			"Exp": func(s *Set, dst, a, _ []float32) { s.Exp(dst, a) }, "Log": func(s *Set, dst, a, _ []float32) { s.Log(dst, a) },
			"Rsqrt": func(s *Set, dst, a, _ []float32) { s.Rsqrt(dst, a) }, "Floor": func(s *Set, dst, a, _ []float32) { s.Floor(dst, a) },
			"Ceil": func(s *Set, dst, a, _ []float32) { s.Ceil(dst, a) }, "Round": func(s *Set, dst, a, _ []float32) { s.Round(dst, a) },
			"Clamp": func(s *Set, dst, a, b []float32) { s.Clamp(dst, b, a, b) }, "Clamp the other way": func(s *Set, dst, a, b []float32) { s.Clamp(dst, a, b, a) },
			"Sqrt": func(s *Set, dst, a, _ []float32) { s.Sqrt(dst, a) }, "Abs": func(s *Set, dst, a, _ []float32) { s.Abs(dst, a) },
			"Neg": func(s *Set, dst, a, _ []float32) { s.Neg(dst, a) }, "Sign": func(s *Set, dst, a, _ []float32) { s.Sign(dst, a) },
			"Select": func(s *Set, dst, a, b []float32) { s.Select(dst, a, b, a) },
		}
		for name, f := range binary {
			for n := range 70 {
				i := 0
				a := newGuarded(n, func() float32 {
					if i++; i%3 == 0 {
						return edges[i/3%len(edges)]
					}
					return rnd.next()
				})
				i = 0
				b := newGuarded(n, func() float32 {
					if i++; i%2 == 0 {
						return edges[i/2*7%len(edges)]
					}
					return a.v[i-1]
				})
				dst, want := newGuarded(n, nan), make([]float32, n)
				f(generic, want, a.v, b.v)
				f(s, dst.v, a.v, b.v)
				for _, g := range []guarded{a, b, dst} {
					g.check(t, name)
				}
				same := func(got []float32, where string) {
					for i, w := range want {
						if got[i] != w && (got[i] == got[i] || w == w) {
							t.Fatalf("%s%s of %d: [%d] = %v, want %v of %v and %v", name, where, n, i, got[i], w, a.v[i], b.v[i])
						}
					}
				}
				same(dst.v, "")
				copy(dst.v, b.v)
				f(s, dst.v, a.v, dst.v)
				same(dst.v, " in place of b")
				f(s, a.v, a.v, b.v)
				same(a.v, " in place of a")
			}
		}
	})
}

// The definitions that the pure Go set states are Go's own.
func TestElementwiseDefinitions(t *testing.T) {
	s := sets[len(sets)-1]
	for _, x := range edges {
		for _, y := range edges {
			for name, c := range map[string]struct {
				f    func(dst, a, b []float32)
				want float32
			}{
				"Max": {s.Max, max(x, y)}, "Min": {s.Min, min(x, y)}, "Div": {s.Div, x / y}, "Less": {s.Less, truth(x < y)}, "Above": {s.Above, truth(y < x)},
				"NotEqual": {s.NotEqual, truth(x != y)}, "Gate": {s.Gate, map[bool]float32{true: x}[y > 0]},
				"Clamp": {func(dst, a, b []float32) { s.Clamp(dst, a, []float32{2}, b) }, min(max(2, x), y)},
			} {
				var got [1]float32
				c.f(got[:], []float32{x}, []float32{y})
				if got[0] != c.want && (got[0] == got[0] || c.want == c.want) {
					t.Errorf("%s(%v, %v) = %v, want %v", name, x, y, got[0], c.want)
				}
			}
		}
	}
}

func TestSumColumns(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		rnd := noise(22)
		for _, cols := range []int{1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 33, 64, 65, 100} {
			for _, rows := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65, 300} {
				x, y := newGuarded(rows*cols, rnd.next), newGuarded(cols, rnd.next)
				want, mag := make([]float64, cols), make([]float64, cols)
				for j, v := range y.v {
					want[j], mag[j] = float64(v), math.Abs(float64(v))
				}
				for i, v := range x.v {
					want[i%cols] += float64(v)
					mag[i%cols] += math.Abs(float64(v))
				}
				s.SumColumns(y.v, x.v)
				x.check(t, "SumColumns")
				y.check(t, "SumColumns")
				for j, v := range y.v {
					if !(math.Abs(float64(v)-want[j]) <= 2e-6*mag[j]) {
						t.Fatalf("%d rows of %d: y[%d] = %v, want %v", rows, cols, j, v, want[j])
					}
				}
				sum, size := 0.0, 0.0
				for _, v := range x.v {
					sum += float64(v)
					size += math.Abs(float64(v))
				}
				if got := s.SumRow(x.v); !(math.Abs(float64(got)-sum) <= 2e-6*size) {
					t.Fatalf("SumRow of %d elements = %v, want %v", len(x.v), got, sum)
				}
			}
		}
	})
}

// BenchmarkElementwise is in the first-level cache.
func BenchmarkElementwise(b *testing.B) {
	for _, s := range Sets() {
		x, y, z := make([]float32, 2048), make([]float32, 2048), make([]float32, 2048)
		for name, f := range map[string]func(){
			"add": func() { s.Add(z, x, y) }, "max": func() { s.Max(z, x, y) }, "gate": func() { s.Gate(z, x, y) },
			"sum16": func() { s.SumColumns(z[:16], x) }, "sum64": func() { s.SumColumns(z[:64], x) }, "sum1": func() { s.SumRow(x) },
		} {
			b.Run(s.Name()+"/"+name, func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(2048*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelement/s")
			})
		}
	}
}
