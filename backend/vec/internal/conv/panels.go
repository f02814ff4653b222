package conv

import "github.com/adaad-go/adaad/internal/kern"

// Panels are a matrix of k rows in column strips as wide as a tile, each strip stored row by row and padded with zeros:
// [strip][k][width]. The last strip is one vector wide if that holds its columns.

// panelCols is the number of columns with padding.
func panelCols(set *kern.Set, n int) int { return roundUp(n, set.Lanes()) }

// fillPanels packs k rows of n columns; row(i) is where row i is, its columns step apart. It goes strip by strip, for the
// rows of a matrix that is stored by columns share their cache lines.
func fillPanels(set *kern.Set, dst []float32, k, n int, row func(i int) (src []float32, step int)) {
	lanes := set.Lanes()
	for col := 0; col < n; {
		width := min(set.MaxVecs(), divUp(n-col, lanes)) * lanes
		have := min(width, n-col)
		for i := range k {
			src, step := row(i)
			d := dst[col*k+i*width:][:width]
			if step == 1 {
				copy(d, src[col:col+have])
			} else {
				at := col * step
				for j := range d[:have] {
					d[j] = src[at]
					at += step
				}
			}
			clear(d[have:])
		}
		col += width
	}
}

// maxRows is the height of the tallest tile of the first of n columns.
func maxRows(set *kern.Set, n int) int { return set.MaxRows(min(set.MaxVecs(), divUp(n, set.Lanes()))) }

// rowSplit splits m rows into tiles of at most as many that differ by at most one row, the taller ones first: tall tiles of
// height, then the others.
func rowSplit(m, most int) (tall, height, others int) {
	n := divUp(m, most)
	if r := m % n; r != 0 {
		return r, m/n + 1, n - r
	}
	return n, m / n, 0
}

// right is the right operand of a product.
type right struct {
	data []float32
	rows int // of the matrix that data holds in panels; 0 if data is row-major
	row  int // panels: the first row of the product; row-major: the distance between rows
}

func (r right) strip(col, width int) (data []float32, row int) {
	if r.rows == 0 {
		return r.data[col:], r.row
	}
	return r.data[col*r.rows+r.row*width:], width
}

// multiply computes c (+)= a·b for m rows, n columns and k terms. c is row-major with room for panelCols columns, and so
// is b if it is not in panels.
func multiply(set *kern.Set, m, n, k int, a []float32, aRow, aCol int, b right, c []float32, cRow int, accumulate bool) {
	t := tiles{walks: true}
	for t.begin(set, m, n, k, a, aRow, aCol, b, c, cRow, accumulate); t.next(); {
		set.Gemm(&t.Tiles, t.a, t.b, t.c)
	}
}

// multiplyAll is multiply for count products: the operands of each are at steps from those of the one before. A tile of all
// is computed in one call of a kernel, which small products would otherwise wait for. The terms come in runs of k, those of a
// being aRun apart. What lies ahead is fetched meanwhile.
func multiplyAll(set *kern.Set, count, runs, m, n, k int, a []float32, aStep, aRun, aRow, aCol int, b right, bStep int, c []float32, cStep, cRow int, accumulate bool, ahead fetches) {
	strip := set.MaxVecs() * set.Lanes()
	calls := n / strip * divUp(m, maxRows(set, n))
	if rest := n % strip; rest > 0 {
		calls += divUp(m, maxRows(set, rest))
	}
	var t tiles
	for t.begin(set, m, n, k, a, aRow, aCol, b, c, cRow, accumulate); t.next(); {
		t.Runs, t.ARun = runs, aRun
		if count == 1 {
			t.Ahead = ahead.take(t.Count, calls)
			calls -= t.Count
			set.Gemm(&t.Tiles, t.a, t.b, t.c)
			continue
		}
		rows := t.Count
		t.Count, t.AStep, t.BStep, t.CStep = count, aStep, bStep, cStep
		for i := range rows {
			t.Ahead = ahead.take(1, calls)
			calls--
			set.Gemm(&t.Tiles, t.a[i*t.Rows*aRow:], t.b, t.c[i*t.Rows*cRow:])
		}
	}
}

// fetches is memory that will be needed: some, and some more.
type fetches [2][]float32

// take is what to fetch in n of the calls of kernels that are left, each of which can fetch from one place.
func (f *fetches) take(n, left int) []float32 {
	sum := len(f[0]) + len(f[1])
	if sum == 0 {
		return nil
	}
	from, calls := &f[0], (2*left*len(f[0])+sum)/(2*sum)
	if calls == 0 {
		from, calls = &f[1], left
	}
	part := (*from)[:min(n, calls)*len(*from)/calls]
	*from = (*from)[len(part):]
	return part
}

// multiplyRows computes c += Σ_t a_t·b_t for count products, a_t being a from t·aStep on and b_t the t-th k rows of b.
func multiplyRows(set *kern.Set, count, m, n, k int, a []float32, aStep, aRow, aCol int, b right, c []float32, cRow int) {
	var t tiles
	for t.begin(set, m, n, k, a, aRow, aCol, b, c, cRow, true); t.next(); {
		rows := t.Count
		t.Count, t.AStep, t.BStep, t.CStep = count, aStep, k*t.BRow, 0
		for i := range rows {
			set.Gemm(&t.Tiles, t.a[i*t.Rows*aRow:], t.b, t.c[i*t.Rows*cRow:])
		}
	}
}

// multiplyFinish is multiply, and then finishing into whole vectors of output rows that are step apart, the first at element
// at, from a channel on. c is left with any contents.
func multiplyFinish(set *kern.Set, m, n, k int, a []float32, aRow, aCol int, b right, c []float32, cRow int, accumulate bool, f *finisher, at, channel, step int) {
	t := tiles{walks: true}
	var to kern.Finishing
	for t.begin(set, m, n, k, a, aRow, aCol, b, c, cRow, accumulate); t.next(); {
		f.at(&to, at+t.row*step+channel+t.col, channel+t.col, step)
		set.GemmFinish(&t.Tiles, t.a, t.b, t.c, &to)
	}
}

// tiles goes through those of a product: those of one height below one another. While those of one strip of panels are
// computed the next is fetched, for what few rows are multiplied with is read but once. If it walks, tiles of one height go through
// all whole strips of panels at once.
type tiles struct {
	kern.Tiles
	a, b, c  []float32 // the operands of these
	row, col int       // where they start

	set          *kern.Set
	walks        bool
	n            int
	left, out    []float32 // all of a and c
	right        right
	rows         int // of a
	tall, others int // tiles of the strip of the greater height, and of one row less
	height       int
	width        int       // of the strip, or of all
	ahead        []float32 // the next
}

// begin goes before the first tiles of a product.
func (t *tiles) begin(set *kern.Set, m, n, k int, a []float32, aRow, aCol int, b right, c []float32, cRow int, accumulate bool) {
	if m == 0 || k == 0 {
		return
	}
	t.set, t.rows, t.n, t.left, t.right, t.out = set, m, n, a, b, c
	t.Tiles = kern.Tiles{K: k, ARow: aRow, ACol: aCol, CRow: cRow, Accumulate: accumulate}
	t.row = m // there are none in the strip of no width before the first
}

// next goes to the next tiles, or returns false where there are none.
func (t *tiles) next() bool {
	if t.others > 0 && t.row == 0 {
		t.row = t.tall * t.height
		t.of(t.height-1, t.others)
		t.Ahead = t.ahead
		return true
	}
	if t.col += t.width; t.col >= t.n {
		return false
	}
	vecs := t.Vecs
	t.b, t.Vecs, t.BRow = t.strip(t.col)
	if t.Vecs != vecs {
		t.tall, t.height, t.others = rowSplit(t.rows, t.set.MaxRows(t.Vecs))
		t.width, t.Strips = t.Vecs*t.set.Lanes(), 1
		if t.walks && t.others == 0 && t.right.rows > 0 {
			t.Strips, t.BStrip = panelCols(t.set, t.n-t.col)/t.width, t.right.rows*t.width
			t.width *= t.Strips
		}
	}
	t.ahead = nil
	if at := t.col + t.width; at < t.n && t.right.rows > 0 {
		next, _, row := t.strip(at)
		t.ahead = next[:t.K*row]
	}
	t.row = 0
	t.of(t.height, t.tall)
	share := len(t.ahead)
	if t.others > 0 {
		share = share * t.tall / (t.tall + t.others)
	}
	t.Ahead, t.ahead = t.ahead[:share], t.ahead[share:]
	return true
}

// strip is that of b from a column on: how many vectors wide it is, and how far its rows are apart.
func (t *tiles) strip(col int) (data []float32, vecs, row int) {
	vecs = min(t.set.MaxVecs(), divUp(t.n-col, t.set.Lanes()))
	data, row = t.right.strip(col, vecs*t.set.Lanes())
	return data, vecs, row
}

// of goes to tiles of a height.
func (t *tiles) of(height, count int) {
	t.Rows, t.Count, t.AStep, t.CStep = height, count, height*t.ARow, height*t.CRow
	t.a, t.c = t.left[t.row*t.ARow:], t.out[t.row*t.CRow+t.col:]
}
