package kern

import "fmt"

// Tiles describes Count matrix products of one shape, each of Rows rows and Vecs vectors of Lanes() columns:
//
//	c[t·CStep + r·CRow + j] (+)= Σ_{u<Runs} Σ_{l<K} a[t·AStep + r·ARow + u·ARun + l·ACol] · b[t·BStep + (u·K+l)·BRow + j]
//
// and likewise for each of Strips, which are beside one another in c and have b from s·BStrip on. Strides and steps are counted in
// elements and are not negative. No Runs are one, and no Strips are too. With bfloat16 an element of a or b is a pair, and a product
// of two is the sum of those of their halves; denormal numbers count as 0.
type Tiles struct {
	Rows, Vecs, K, Count int
	Runs, ARun           int
	ARow, ACol, AStep    int
	BRow, BStep          int
	CRow, CStep          int
	Strips, BStrip       int
	Accumulate           bool      // add to c
	Ahead                []float32 // is brought into the processor's second-level cache meanwhile, or if there are Strips the next of them
}

// ahead is where to fetch from, and by how many bytes to go on with each term. Where there is nothing to fetch it is an operand.
func (t *Tiles) ahead(b []float32) (from *float32, step int) {
	if t.Strips > 1 {
		return &b[t.BStrip], 4 * t.BRow / t.Count
	}
	if len(t.Ahead) == 0 {
		return &b[0], 0
	}
	return &t.Ahead[0], 4 * len(t.Ahead) / (t.runs() * t.K * t.Count)
}

func (t *Tiles) runs() int { return max(1, t.Runs) }

func (t *Tiles) strips() int { return max(1, t.Strips) }

// jump is how many bytes lie between where one run of a ends and the next starts.
func (t *Tiles) jump() int { return 4 * (t.ARun - t.K*t.ACol) }

// need panics unless the operands reach as far as they are read.
func (t *Tiles) need(a, b []float32, cols int) {
	need("a", a, t.Count, t.AStep, (t.Rows-1)*t.ARow+(t.runs()-1)*t.ARun+(t.K-1)*t.ACol+1)
	need("b", b, t.Count, t.BStep, (t.strips()-1)*t.BStrip+(t.runs()*t.K-1)*t.BRow+cols)
}

// MaxRows is the largest Tiles.Rows of tiles so many vectors wide.
func (s *Set) MaxRows(vecs int) int { return s.rows[vecs-1] }

// MaxVecs is the largest Tiles.Vecs.
func (s *Set) MaxVecs() int { return 2 }

// Gemm computes the products; every one needs at least one row, one vector and one term.
func (s *Set) Gemm(t *Tiles, a, b, c []float32) {
	if t.Count == 0 {
		return
	}
	cols := t.Vecs * s.lanes
	t.need(a, b, cols)
	need("c", c, t.Count, t.CStep, (t.Rows-1)*t.CRow+t.strips()*cols)
	if s.asm == nil {
		if s.pairs {
			gemmPairs(*t, cols, a, b, c)
			return
		}
		gemmGeneric(*t, cols, a, b, c)
		return
	}
	accumulate := 0
	if t.Accumulate {
		accumulate = 1
	}
	ahead, aheadStep := t.ahead(b)
	kernel := s.asm.gemm[t.Vecs-1][t.Rows-1]
	if t.ARow == 1 && t.Vecs == 1 && t.Rows == s.MaxRows(1) && s.asm.gemmColumns != nil {
		kernel = s.asm.gemmColumns
	}
	kernel(t.K, t.runs(), &a[0], t.ARow, t.ACol, t.jump(), &b[0], t.BRow, &c[0], t.CRow, accumulate, t.Count, t.AStep,
		t.BStep, t.CStep, t.strips(), t.BStrip, ahead, aheadStep)
}

// HeldTerms is the number of terms of GemmHeld, or 0 where there is none.
func (s *Set) HeldTerms() int {
	if s.asm == nil || s.asm.gemmHeld == nil {
		return 0
	}
	return 16
}

// GemmHeld is Gemm for products of HeldTerms() terms and a single vector of columns, where ACol is 1 and BRow the vector, without
// Runs, Strips or Accumulate: b stays in registers while any number of rows go by.
func (s *Set) GemmHeld(t *Tiles, a, b, c []float32) {
	if t.Count == 0 {
		return
	}
	if t.K != s.HeldTerms() || t.Vecs != 1 || t.ACol != 1 || t.BRow != s.lanes || t.Runs > 1 || t.Strips > 1 || t.Accumulate {
		panic(fmt.Sprintf("kern: no products %+v with their right operand in registers", *t))
	}
	t.need(a, b, s.lanes)
	need("c", c, t.Count, t.CStep, (t.Rows-1)*t.CRow+s.lanes)
	ahead, step := &a[0], 0
	if n := t.Count * (t.Rows / 8); len(t.Ahead) > 0 && n > 0 {
		ahead, step = &t.Ahead[0], 4*len(t.Ahead)/n
	}
	s.asm.gemmHeld(t.Rows, &a[0], t.ARow, &b[0], &c[0], t.CRow, t.Count, t.AStep, t.BStep, t.CStep, ahead, step)
}

// Finishing is what becomes of products: with i = t·Rows + r,
//
//	Y[i·YRow + j] = max(Floor, product + Bias[j] + Extra[i·YRow + j]), and 0 where row i of the mask has no bit MaskFirst + j
//
// Extra and Mask may be nil, and Extra may be Y. NaN stays NaN; a Floor of -Inf is no floor.
type Finishing struct {
	Y           []float32
	YRow        int
	Bias, Extra []float32
	Mask        []uint16
	MaskRow     int // in words
	MaskFirst   int // a multiple of 16 but for the pure Go set
	Floor       float32
}

// GemmFinish computes the products of tiles that lie one below another in c (CStep is Rows·CRow) and finishes them. c
// holds what they are added to, if they are, and is left with any contents.
func (s *Set) GemmFinish(t *Tiles, a, b, c []float32, f *Finishing) {
	if t.Count == 0 {
		return
	}
	rows, strip := t.Count*t.Rows, t.Vecs*s.lanes
	cols := t.strips() * strip
	need("y", f.Y, rows, f.YRow, cols)
	need("bias", f.Bias, 1, 0, cols)
	var extra *float32
	var mask *uint16
	if f.Extra != nil {
		need("extra", f.Extra, rows, f.YRow, cols)
		extra = &f.Extra[0]
	}
	if f.Mask != nil {
		needMask(f.Mask, rows, f.MaskRow, f.MaskFirst+cols)
		mask = &f.Mask[f.MaskFirst/16]
	}
	if s.asm != nil && f.MaskFirst%16 != 0 {
		panic(fmt.Sprintf("kern: the mask's first column is %d, which starts no word", f.MaskFirst))
	}
	if s.asm == nil {
		s.Gemm(t, a, b, c)
		finishGeneric(*f, c, t.CRow, rows, cols)
		return
	}
	t.need(a, b, strip)
	accumulate := 0
	if t.Accumulate {
		need("c", c, t.Count, t.CStep, (t.Rows-1)*t.CRow+cols)
		accumulate = 1
	}
	ahead, aheadStep := t.ahead(b)
	s.asm.gemmFinish[t.Vecs-1][t.Rows-1](t.K, t.runs(), &a[0], t.ARow, t.ACol, t.jump(), &b[0], t.BRow, &c[0], t.CRow, accumulate, t.Count, t.AStep,
		t.BStep, t.CStep, t.strips(), t.BStrip, ahead, aheadStep, &f.Y[0], f.YRow, &f.Bias[0], extra, mask, f.MaskRow, f.Floor)
}

func finishGeneric(f Finishing, c []float32, cRow, rows, cols int) {
	for i := range rows {
		for j, v := range c[i*cRow:][:cols] {
			at := i*f.YRow + j
			v += f.Bias[j]
			if f.Extra != nil {
				v += f.Extra[at]
			}
			if f.Mask != nil && !bit(f.Mask[i*f.MaskRow:], f.MaskFirst+j) {
				v = 0
			}
			if v < f.Floor {
				v = f.Floor
			}
			f.Y[at] = v
		}
	}
}

func gemmPairs(t Tiles, cols int, a, b, c []float32) {
	for i := range t.Count * t.Rows * t.strips() {
		n, r, strip := i/t.strips()/t.Rows, i/t.strips()%t.Rows, i%t.strips()
		sums := c[n*t.CStep+r*t.CRow+strip*cols:][:cols]
		if !t.Accumulate {
			clear(sums)
		}
		left, right := a[n*t.AStep+r*t.ARow:], b[n*t.BStep+strip*t.BStrip:]
		for u := range t.runs() {
			for l := range t.K {
				x0, x1 := unpair(left[u*t.ARun+l*t.ACol])
				for j, y := range right[(u*t.K+l)*t.BRow:][:cols] {
					y0, y1 := unpair(y)
					sums[j] = sums[j] + x1*y1 + x0*y0
				}
			}
		}
	}
}

func gemmGeneric(t Tiles, cols int, a, b, c []float32) {
	if strips := t.strips(); strips > 1 {
		t.Strips = 1
		for i := range strips {
			gemmGeneric(t, cols, a, b[i*t.BStrip:], c[i*cols:])
		}
		return
	}
	if runs := t.runs(); runs > 1 {
		t.Runs = 1
		for u := range runs {
			gemmGeneric(t, cols, a[u*t.ARun:], b[u*t.K*t.BRow:], c)
			t.Accumulate = true
		}
		return
	}
	for n := range t.Count {
		a, b, c := a[n*t.AStep:], b[n*t.BStep:], c[n*t.CStep:]
		r := 0
		for ; r+2 <= t.Rows; r += 2 {
			for j := 0; j < cols; j += 4 {
				c0, c1 := c[r*t.CRow+j:][:4], c[(r+1)*t.CRow+j:][:4]
				var p0, p1, p2, p3, q0, q1, q2, q3 float32
				if t.Accumulate {
					p0, p1, p2, p3, q0, q1, q2, q3 = c0[0], c0[1], c0[2], c0[3], c1[0], c1[1], c1[2], c1[3]
				}
				at, bt := r*t.ARow, j
				for range t.K {
					x, y, w := a[at], a[at+t.ARow], b[bt:bt+4:bt+4]
					p0 += x * w[0]
					p1 += x * w[1]
					p2 += x * w[2]
					p3 += x * w[3]
					q0 += y * w[0]
					q1 += y * w[1]
					q2 += y * w[2]
					q3 += y * w[3]
					at += t.ACol
					bt += t.BRow
				}
				c0[0], c0[1], c0[2], c0[3], c1[0], c1[1], c1[2], c1[3] = p0, p1, p2, p3, q0, q1, q2, q3
			}
		}
		for ; r < t.Rows; r++ {
			for j := 0; j < cols; j += 4 {
				c0 := c[r*t.CRow+j:][:4]
				var p0, p1, p2, p3 float32
				if t.Accumulate {
					p0, p1, p2, p3 = c0[0], c0[1], c0[2], c0[3]
				}
				at, bt := r*t.ARow, j
				for range t.K {
					x, w := a[at], b[bt:bt+4:bt+4]
					p0 += x * w[0]
					p1 += x * w[1]
					p2 += x * w[2]
					p3 += x * w[3]
					at += t.ACol
					bt += t.BRow
				}
				c0[0], c0[1], c0[2], c0[3] = p0, p1, p2, p3
			}
		}
	}
}
