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

// rowSplit splits m rows into tiles that differ by at most one row, the taller ones first: tall tiles of height, then
// the others.
func rowSplit(set *kern.Set, m int) (tall, height, others int) {
	n := divUp(m, set.MaxRows())
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
	forTiles(set, m, n, k, a, aRow, aCol, b, c, cRow, accumulate, func(t kern.Tiles, a, strip, c []float32, _, _ int) {
		set.Gemm(t, a, strip, c)
	})
}

// multiplyAll is multiply for count products: the operands of each are at steps from those of the one before. A tile of all
// is computed in one call of a kernel, which small products would otherwise wait for. The terms come in runs of k, those of a
// being aRun apart. What ahead holds is fetched meanwhile.
func multiplyAll(set *kern.Set, count, runs, m, n, k int, a []float32, aStep, aRun, aRow, aCol int, b right, bStep int, c []float32, cStep, cRow int, accumulate bool, ahead []float32) {
	tiles, done := divUp(m, set.MaxRows())*divUp(n, set.MaxVecs()*set.Lanes()), 0
	share := func(n int) []float32 {
		from := done * len(ahead) / tiles
		done += n
		return ahead[from : done*len(ahead)/tiles]
	}
	forTiles(set, m, n, k, a, aRow, aCol, b, c, cRow, accumulate, func(t kern.Tiles, a, strip, c []float32, _, _ int) {
		t.Runs, t.ARun = runs, aRun
		if count == 1 {
			t.Ahead = share(t.Count)
			set.Gemm(t, a, strip, c)
			return
		}
		rows := t.Count
		t.Count, t.AStep, t.BStep, t.CStep = count, aStep, bStep, cStep
		for i := range rows {
			t.Ahead = share(1)
			set.Gemm(t, a[i*t.Rows*aRow:], strip, c[i*t.Rows*cRow:])
		}
	})
}

// multiplyRows computes c += Σ_t a_t·b_t for count products, a_t being a from t·aStep on and b_t the t-th k rows of b.
func multiplyRows(set *kern.Set, count, m, n, k int, a []float32, aStep, aRow, aCol int, b right, c []float32, cRow int) {
	forTiles(set, m, n, k, a, aRow, aCol, b, c, cRow, true, func(t kern.Tiles, a, strip, c []float32, _, _ int) {
		rows, height := t.Count, t.Rows
		t.Count, t.AStep, t.BStep, t.CStep = count, aStep, k*t.BRow, 0
		for i := range rows {
			set.Gemm(t, a[i*height*aRow:], strip, c[i*height*cRow:])
		}
	})
}

// multiplyFinish is multiply, and then finishing into whole vectors of output rows that are step apart, the first at element
// at, from a channel on. c is left with any contents.
func multiplyFinish(set *kern.Set, m, n, k int, a []float32, aRow, aCol int, b right, c []float32, cRow int, accumulate bool, f finisher, at, channel, step int) {
	forTiles(set, m, n, k, a, aRow, aCol, b, c, cRow, accumulate, func(t kern.Tiles, a, strip, c []float32, row, col int) {
		set.GemmFinish(t, a, strip, c, f.at(at+row*step+channel+col, channel+col, step))
	})
}

// forTiles calls f for the tiles of a product: those of one height below one another, where they start. While those of one
// strip of panels are computed the next is fetched, for what few rows are multiplied with is read but once.
func forTiles(set *kern.Set, m, n, k int, a []float32, aRow, aCol int, b right, c []float32, cRow int, accumulate bool,
	f func(t kern.Tiles, a, strip, c []float32, row, col int)) {
	if m == 0 || k == 0 {
		return
	}
	lanes := set.Lanes()
	tall, height, others := rowSplit(set, m)
	for col := 0; col < n; {
		vecs := min(set.MaxVecs(), divUp(n-col, lanes))
		width := vecs * lanes
		strip, bRow := b.strip(col, width)
		t := kern.Tiles{Rows: height, Vecs: vecs, K: k, Count: tall, ARow: aRow, ACol: aCol, AStep: height * aRow,
			BRow: bRow, CRow: cRow, CStep: height * cRow, Accumulate: accumulate}
		var next []float32
		if at := col + width; at < n && b.rows > 0 {
			next, bRow = b.strip(at, min(set.MaxVecs(), divUp(n-at, lanes))*lanes)
			next = next[:k*bRow]
		}
		half := len(next) * tall / (tall + others)
		t.Ahead = next[:half]
		f(t, a, strip, c[col:], 0, col)
		if others > 0 {
			done := tall * height
			t.Ahead = next[half:]
			t.Rows, t.Count, t.AStep, t.CStep = height-1, others, (height-1)*aRow, (height-1)*cRow
			f(t, a[done*aRow:], strip, c[done*cRow+col:], done, col)
		}
		col += width
	}
}
