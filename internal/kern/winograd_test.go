package kern

import (
	"math"
	"testing"
)

// matrix is a dense float64 matrix for the definitions.
type matrix [][]float64

func (a matrix) mul(b matrix) matrix {
	c := make(matrix, len(a))
	for i := range a {
		c[i] = make([]float64, len(b[0]))
		for j := range b[0] {
			for k := range b {
				c[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return c
}

func (a matrix) t() matrix {
	c := make(matrix, len(a[0]))
	for j := range a[0] {
		for i := range a {
			c[j] = append(c[j], a[i][j])
		}
	}
	return c
}

// The matrices from their definition by interpolation points (Toom-Cook): A is the points' Vandermonde matrix, G that of
// degree two over Π(a-b), and Bᵀ holds the coefficients of Π(x-b), the products taken over the other finite points b.
func toomCook() (bt, g, a matrix) {
	points := []float64{0, math.Sqrt2 / 2, -math.Sqrt2 / 2, math.Sqrt2, -math.Sqrt2}
	poly := func(skip int) []float64 {
		c := []float64{1}
		for k, b := range points {
			if k == skip {
				continue
			}
			next := make([]float64, len(c)+1)
			for i, v := range c {
				next[i+1] += v
				next[i] -= float64(b * v) // not fused: zeros come out as zeros
			}
			c = next
		}
		return append(c, make([]float64, 6-len(c))...)
	}
	for i, x := range points {
		n := 1.0
		for k, b := range points {
			if k != i {
				n *= x - b
			}
		}
		bt = append(bt, poly(i))
		g = append(g, []float64{1 / n, x / n, x * x / n})
		a = append(a, []float64{1, x, x * x, x * x * x})
	}
	return append(bt, poly(-1)), append(g, []float64{0, 0, 1}), append(a, []float64{0, 0, 0, 1})
}

func (a matrix) abs() matrix {
	c := make(matrix, len(a))
	for i := range a {
		for _, v := range a[i] {
			c[i] = append(c[i], math.Abs(v))
		}
	}
	return c
}

// sandwich is l·m·lᵀ, and the same of all magnitudes.
func sandwich(l, m matrix) (want, magnitude matrix) {
	return l.mul(m).mul(l.t()), l.abs().mul(m.abs()).mul(l.abs().t())
}

// closeTo compares with a bound of 1e-6 of the sum of the terms' magnitudes.
func closeTo(t *testing.T, what string, got func(i, j int) float32, want, magnitude matrix) {
	t.Helper()
	for i, r := range want {
		for j, v := range r {
			if !(math.Abs(float64(got(i, j))-v) <= 1e-6*magnitude[i][j]) {
				t.Fatalf("%s[%d][%d] = %v, want %v", what, i, j, got(i, j), v)
			}
		}
	}
}

// everyPoints are the points of rows and columns that there are transforms of.
var everyPoints = [][2]Points{
	{AllPoints, AllPoints}, {TwoTaps, TwoTaps}, {TwoTaps, OneTap}, {OneTap, TwoTaps}, {OneTap, OneTap},
}

func (p Points) has(i int) bool { return i >= p.From && i < p.To }

// only is m with zeros for all other points.
func (m matrix) only(high, wide Points) matrix {
	for i := range m {
		for j := range m[i] {
			if !high.has(i) || !wide.has(j) {
				m[i][j] = 0
			}
		}
	}
	return m
}

func TestWinogradMatricesConvolve(t *testing.T) {
	bt, g, a := toomCook()
	rnd := noise(3)
	for _, axes := range everyPoints {
		high, wide := axes[0], axes[1]
		d, w := make(matrix, 6), make(matrix, 3)
		for i := range d {
			for range 6 {
				d[i] = append(d[i], float64(rnd.next()))
			}
		}
		for i := range w {
			for j := range 3 {
				w[i] = append(w[i], float64(rnd.next()))
				if i < high.From || i >= high.To-3 || j < wide.From || j >= wide.To-3 {
					w[i][j] = 0
				}
			}
		}
		v, u := bt.mul(d).mul(bt.t()).only(high, wide), g.mul(w).mul(g.t())
		for i := range v {
			for j := range v[i] {
				v[i][j] *= u[i][j]
			}
		}
		y := a.t().mul(v).mul(a)
		for i := range 4 {
			for j := range 4 {
				want := 0.0
				for k := range 3 {
					for l := range 3 {
						want += d[i+k][j+l] * w[k][l]
					}
				}
				if math.Abs(y[i][j]-want) > 1e-12 {
					t.Fatalf("points %v and %v: y[%d][%d] = %v, want %v", high, wide, i, j, y[i][j], want)
				}
			}
		}
	}
}

func TestWinogradTransforms(t *testing.T) {
	bt, g, a := toomCook()
	everySet(t, func(t *testing.T, s *Set) {
		rnd := noise(11)
		for vecs := 1; vecs <= 3; vecs++ {
			n := vecs * s.Lanes()
			// Where the first patch of a span begins, and how wide the image is, in columns.
			for trial, c := range []struct{ left, width, count int }{
				{0, 6, 1}, {-1, 6, 1}, {0, 5, 1}, {-3, 4, 1}, {-5, 1, 1}, {-7, 1, 1}, {2, 4, 1}, {5, 6, 1}, {9, 3, 1},
				{0, 18, 4}, {-1, 32, 8}, {-2, 15, 5}, {-6, 3, 4}, {1, 9, 3}, {-4, 6, 2},
			} {
				spans, top := 1+trial%4, trial%5-3
				height := 1 + (7*trial)%(4*spans+3)
				tiles := spans * c.count
				tile, col := n+trial%3, n+3
				row := (c.width-1)*col + n + trial%2
				plane := tiles*tile + trial
				patch := func(size int) (x guarded, m *Image, d func(tile, l int) matrix) {
					x = newGuarded((height-1)*row+(c.width-1)*col+n, rnd.next)
					m = &Image{X: x.v, Zeros: make([]float32, row), Height: height, Width: c.width, Row: row, Col: col}
					image := x.v
					return x, m, func(tile, l int) matrix {
						m := make(matrix, size)
						for i := range m {
							m[i] = make([]float64, size)
							for j := range m[i] {
								y, x := top+4*(tile/c.count)+i, c.left+4*(tile%c.count)+j
								if y >= 0 && y < height && x >= 0 && x < c.width {
									m[i][j] = float64(image[y*row+x*col+l])
								}
							}
						}
						return m
					}
				}
				dst := newGuarded(35*plane+(tiles-1)*tile+n, rnd.next)
				at := func(k, l int) func(i, j int) float32 {
					return func(i, j int) float32 { return dst.v[(6*i+j)*plane+k*tile+l] }
				}
				for _, axes := range everyPoints {
					high, wide := axes[0], axes[1]
					x, m, d := patch(6)
					for i := range dst.v {
						dst.v[i] = 7
					}
					s.WinogradInput(dst.v, plane, tile, m, high, wide, top, c.left, vecs, c.count, spans)
					dst.check(t, "WinogradInput")
					x.check(t, "WinogradInput")
					for k := range tiles {
						for l := range n {
							want, mag := sandwich(bt, d(k, l))
							closeTo(t, "input", func(i, j int) float32 {
								v := at(k, l)(i, j)
								if high.has(i) && wide.has(j) {
									return v
								}
								if v != 7 {
									t.Fatalf("wrote plane %d, %d of points %v and %v", i, j, high, wide)
								}
								return float32(want[i][j])
							}, want, mag)
						}
					}
				}
				x, m, d := patch(4)
				s.WinogradGradient(dst.v, plane, tile, m, top, c.left, vecs, c.count, spans)
				dst.check(t, "WinogradGradient")
				x.check(t, "WinogradGradient")
				for k := range tiles {
					for l := range n {
						want, mag := sandwich(a, d(k, l))
						closeTo(t, "gradient", at(k, l), want, mag)
					}
				}

				w := newGuarded(8*col+n, rnd.next)
				s.WinogradWeights(dst.v, plane, w.v, col, vecs)
				dst.check(t, "WinogradWeights")
				square := func(x []float32, size, plane, l int) matrix {
					m := make(matrix, size)
					for i := range m {
						for j := range size {
							m[i] = append(m[i], float64(x[(size*i+j)*plane+l]))
						}
					}
					return m
				}
				for l := range n {
					want, mag := sandwich(g, square(w.v, 3, col, l))
					closeTo(t, "weights", at(0, l), want, mag)
				}
				src := newGuarded(35*plane+(c.count-1)*tile+n, rnd.next)
				s.WinogradWeightsGrad(w.v, col, src.v, plane, vecs)
				w.check(t, "WinogradWeightsGrad")
				for l := range n {
					want, mag := sandwich(g.t(), square(src.v, 6, plane, l))
					closeTo(t, "weights' gradient", func(i, j int) float32 { return w.v[(3*i+j)*col+l] }, want, mag)
				}

				row = 4*c.count*col + trial
				bias := newGuarded(n, rnd.next)
				for mode := range 5 {
					points := everyPoints[(vecs+trial+mode)%len(everyPoints)]
					high, wide := points[0], points[1]
					y := newGuarded(3*row+(4*c.count-1)*col+n, rnd.next)
					extra := newGuarded(len(y.v), rnd.next)
					old := append([]float32(nil), y.v...)
					floor, add := float32(math.Inf(-1)), extra.v
					maskCol := MaskWords(16+n) + trial%2
					maskRow := 4*c.count*maskCol + trial%3
					first := 16 * (trial % 2)
					gate := newMask(3*maskRow+(4*c.count-1)*maskCol+MaskWords(first+n), rnd.next)
					switch mode {
					case 0:
						s.WinogradOutput(y.v, row, col, src.v, plane, tile, high, wide, bias.v, nil, floor, vecs, c.count)
					case 1:
						floor = 0
						s.WinogradOutput(y.v, row, col, src.v, plane, tile, high, wide, bias.v, extra.v, floor, vecs, c.count)
					case 2:
						add = old
						s.WinogradOutput(y.v, row, col, src.v, plane, tile, high, wide, bias.v, y.v, floor, vecs, c.count)
					case 3:
						s.WinogradOutputMask(y.v, row, col, src.v, plane, tile, high, wide, nil, gate, maskRow, maskCol, first, vecs, c.count)
					case 4:
						s.WinogradOutputMask(y.v, row, col, src.v, plane, tile, high, wide, y.v, gate, maskRow, maskCol, first, vecs, c.count)
					}
					y.check(t, "WinogradOutput")
					written := map[int]bool{}
					for k := range c.count {
						for l := range n {
							want, mag := sandwich(a.t(), square(src.v, 6, plane, k*tile+l).only(high, wide))
							for i := range 4 {
								for j := range 4 {
									at := i*row + (4*k+j)*col + l
									written[at] = true
									if mode >= 3 {
										if mode == 4 {
											want[i][j] += float64(old[at])
											mag[i][j] += math.Abs(float64(old[at]))
										}
										if !bit(gate[i*maskRow+(4*k+j)*maskCol:], first+l) {
											want[i][j] = 0
										}
										continue
									}
									want[i][j] += float64(bias.v[l])
									mag[i][j] += math.Abs(float64(bias.v[l]))
									if mode > 0 {
										want[i][j] += float64(add[at])
										mag[i][j] += math.Abs(float64(add[at]))
									}
									want[i][j] = max(float64(floor), want[i][j])
								}
							}
							closeTo(t, "output", func(i, j int) float32 { return y.v[i*row+(4*k+j)*col+l] }, want, mag)
						}
					}
					for i, v := range y.v {
						if !written[i] && v != old[i] {
							t.Fatalf("WinogradOutput wrote between its elements, at %d", i)
						}
					}
				}
			}
		}
	})
}

// BenchmarkWinograd times the transforms by vector of a tile, for a row of tiles.
func BenchmarkWinograd(b *testing.B) {
	for _, s := range Sets() {
		const vecs, count = 1, 8
		n := vecs * s.Lanes()
		plane := count*n + 16
		width := 4*count + 2
		planes, image := make([]float32, 36*plane), make([]float32, 6*width*n)
		bias := image[:n]
		m := &Image{X: image, Zeros: make([]float32, width*n), Height: 6, Width: width, Row: width * n, Col: n}
		for name, f := range map[string]func(){
			"input":     func() { s.WinogradInput(planes, plane, n, m, AllPoints, AllPoints, 0, 0, vecs, count, 1) },
			"input-two": func() { s.WinogradInput(planes, plane, n, m, TwoTaps, TwoTaps, 0, 0, vecs, count, 1) },
			"input-one": func() { s.WinogradInput(planes, plane, n, m, OneTap, OneTap, 0, 0, vecs, count, 1) },
			"gradient":  func() { s.WinogradGradient(planes, plane, n, m, 0, 0, vecs, count, 1) },
			"output": func() {
				s.WinogradOutput(image, width*n, n, planes, plane, n, AllPoints, AllPoints, bias, nil, 0, vecs, count)
			},
			"output-two": func() {
				s.WinogradOutput(image, width*n, n, planes, plane, n, TwoTaps, TwoTaps, bias, nil, 0, vecs, count)
			},
			"weights":      func() { s.WinogradWeights(planes, plane, image, count*n, count*vecs) },
			"weights-grad": func() { s.WinogradWeightsGrad(image, count*n, planes, plane, count*vecs) },
		} {
			b.Run(s.Name()+"/"+name, func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/vecs/count*1e9, "ns/vector")
			})
		}
	}
}
