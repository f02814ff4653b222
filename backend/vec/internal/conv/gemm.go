package conv

import "github.com/adaad-go/adaad/internal/kern"

// Matrix views element (i,j) at Data[i·Rows + j·Cols], so a transposed matrix is a view too.
type Matrix struct {
	Data       []float32
	Rows, Cols int // distance between neighbours in a column, and in a row
}

// gemmTerms bounds the part of b that is packed at once; gemmTasks asks for that many blocks of rows. Where there are fewer,
// each is done in blocks of gemmCols columns.
const (
	gemmTerms = 1024
	gemmCols  = 512
	gemmStrip = 128 // packed by one task
	gemmTasks = 8
)

// Gemm computes c = a·b for a[m,k], b[k,n] and a row-major c[m,n]; c may not overlap a or b. a and b need only reach
// their last element.
func Gemm(par Parallel, set *kern.Set, m, n, k int, a, b Matrix, c []float32) {
	if m == 0 || n == 0 {
		return
	}
	if k == 0 {
		clear(c[:m*n])
		return
	}
	sc := getScratch(par.Workers())
	defer sc.put()
	direct := n%set.Lanes() == 0 // the products need no room beside c
	if m == 1 && !direct {
		gemmRow(par, sc, set, n, k, a, b, c)
		return
	}
	strips := sc.common(panelCols(set, n) * min(k, gemmTerms))
	rows := maxRows(set, n)
	blocks := roundUp(divUp(m, 6*rows), gemmTasks)
	height := max(rows, divUp(m, blocks))
	blocks = divUp(m, height)
	cols := n
	if blocks < gemmTasks {
		cols = min(n, gemmCols)
	}
	parts := divUp(n, cols)
	aRow, cRow := oddLines(min(k, gemmTerms)), oddLines(panelCols(set, cols))
	zeros := make([]float32, panelCols(set, cols))
	room := height * cRow
	if direct {
		room = 0
	}
	for first := 0; first < k; first += gemmTerms {
		terms := min(gemmTerms, k-first)
		panels := func(col int) right { return right{strips[col*terms:], terms, 0} }
		par.Run(divUp(n, gemmStrip), func(strip, _ int) {
			col := strip * gemmStrip
			fillPanels(set, strips[col*terms:], terms, min(gemmStrip, n-col), func(i int) ([]float32, int) {
				return b.Data[(first+i)*b.Rows+col*b.Cols:], b.Cols
			})
		})
		par.Run(blocks*parts, func(task, worker int) {
			row, col := task/parts*height, task%parts*cols
			count, width := min(height, m-row), min(cols, n-col)
			buf := sc.worker(worker, height*aRow+room+2*line)
			left, products := cut(&buf, height*aRow), cut(&buf, room)
			// Rows that are a power of two apart would compete for the same lines of the cache.
			for i := range count {
				from, to := a.Data[(row+i)*a.Rows+first*a.Cols:], left[i*aRow:][:terms]
				if a.Cols == 1 {
					copy(to, from)
					continue
				}
				for j := range to {
					to[j] = from[j*a.Cols]
				}
			}
			out := c[row*n+col:]
			if direct {
				// All of b goes by for every block of rows: while one strip is multiplied the next is fetched.
				strip := set.MaxVecs() * set.Lanes()
				for at := col; at < col+width; at += strip {
					next := min(n, at+strip)
					multiplyAll(set, 1, 1, count, min(strip, col+width-at), terms, left, 0, 0, aRow, 1, panels(at), 0, out[at-col:], 0, n, first > 0,
						fetches{strips[next*terms : min(n, next+strip)*terms]})
				}
				return
			}
			multiply(set, count, width, terms, left, aRow, 1, panels(col), products, cRow, false)
			var sum []float32
			if first > 0 {
				sum = out
			}
			set.Finish(out, n, products, cRow, zeros, sum, noFloor, count, width)
		})
	}
}

// gemmRow is Gemm of a single row, for which packing b would take longer than the product. The columns of b are the rows of a left
// operand instead, where they are. The right one has a as its first column, and anything in the others: its rows are a from one
// element on each. What is computed of an element, and in which order, is what Gemm does for more rows.
func gemmRow(par Parallel, sc *scratch, set *kern.Set, n, k int, a, b Matrix, c []float32) {
	const cols = 64 // in a task
	lanes := set.Lanes()
	row := sc.common(min(k, gemmTerms) + lanes)
	clear(c[:n])
	for first := 0; first < k; first += gemmTerms {
		terms := min(gemmTerms, k-first)
		for i := range terms {
			row[i] = a.Data[(first+i)*a.Cols]
		}
		par.Run(divUp(n, cols), func(task, worker int) {
			col := task * cols
			out := c[col:min(n, col+cols)]
			products := sc.worker(worker, cols*lanes)
			multiply(set, len(out), lanes, terms, b.Data[first*b.Rows+col*b.Cols:], b.Cols, b.Rows, right{row, 0, 1}, products, lanes, false)
			for j := range out {
				out[j] += products[j*lanes]
			}
		})
	}
}
