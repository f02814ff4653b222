package kern

// Tiles describes Count matrix products of one shape, each of Rows rows and Vecs vectors of Lanes() columns:
//
//	c[t·CStep + r·CRow + j] (+)= Σ_{l<K} a[t·AStep + r·ARow + l·ACol] · b[t·BStep + l·BRow + j]
//
// Strides and steps are counted in elements and are not negative.
type Tiles struct {
	Rows, Vecs, K, Count int
	ARow, ACol, AStep    int
	BRow, BStep          int
	CRow, CStep          int
	Accumulate           bool // add to c
}

// MaxRows is the largest Tiles.Rows.
func (s *Set) MaxRows() int { return s.rows }

// MaxVecs is the largest Tiles.Vecs.
func (s *Set) MaxVecs() int { return 2 }

// Gemm computes the products; every one needs at least one row, one vector and one term.
func (s *Set) Gemm(t Tiles, a, b, c []float32) {
	if t.Count == 0 {
		return
	}
	cols := t.Vecs * s.lanes
	need("a", a, t.Count, t.AStep, (t.Rows-1)*t.ARow+(t.K-1)*t.ACol+1)
	need("b", b, t.Count, t.BStep, (t.K-1)*t.BRow+cols)
	need("c", c, t.Count, t.CStep, (t.Rows-1)*t.CRow+cols)
	if s.asm == nil {
		gemmGeneric(t, cols, a, b, c)
		return
	}
	accumulate := 0
	if t.Accumulate {
		accumulate = 1
	}
	s.asm.gemm[t.Vecs-1][t.Rows-1](t.K, &a[0], t.ARow, t.ACol, &b[0], t.BRow, &c[0], t.CRow, accumulate, t.Count, t.AStep, t.BStep, t.CStep)
}

func gemmGeneric(t Tiles, cols int, a, b, c []float32) {
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
