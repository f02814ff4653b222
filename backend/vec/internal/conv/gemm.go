package conv

import "github.com/adaad-go/adaad/internal/kern"

// Matrix views element (i,j) at Data[i·Rows + j·Cols], so a transposed matrix is a view too.
type Matrix struct {
	Data       []float32
	Rows, Cols int // distance between neighbours in a column, and in a row
}

// gemmTerms and gemmCols bound the part of b that is packed at once; gemmTasks asks for that many blocks of rows.
const (
	gemmTerms = 1024
	gemmCols  = 512
	gemmStrip = 128 // of them packed by one task
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
	cols := min(gemmCols, panelCols(set, n))
	strips := sc.common(divUp(n, gemmCols) * min(k, gemmTerms) * cols)
	rows := set.MaxRows()
	height := min(6*rows, max(rows, roundUp(divUp(m, gemmTasks), rows)))
	aRow, cRow := oddLines(min(k, gemmTerms)), oddLines(cols)
	zeros := make([]float32, cols)
	direct := n%set.Lanes() == 0 // the products need no room beside c
	for first := 0; first < k; first += gemmTerms {
		terms := min(gemmTerms, k-first)
		par.Run(divUp(n, gemmStrip), func(strip, _ int) {
			col := strip * gemmStrip
			block, within := col/gemmCols, col%gemmCols
			fillPanels(set, strips[block*min(k, gemmTerms)*cols+within*terms:], terms, min(gemmStrip, n-col), func(i int) ([]float32, int) {
				return b.Data[(first+i)*b.Rows+col*b.Cols:], b.Cols
			})
		})
		par.Run(divUp(m, height)*divUp(n, gemmCols), func(task, worker int) {
			strip, row := task%divUp(n, gemmCols), task/divUp(n, gemmCols)*height
			col, count := strip*gemmCols, min(height, m-row)
			width := min(gemmCols, n-col)
			buf := sc.worker(worker, height*(aRow+cRow)+2*line)
			left, products := cut(&buf, height*aRow), cut(&buf, height*cRow)
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
			right := right{strips[strip*min(k, gemmTerms)*cols:], terms, 0}
			out := c[row*n+col:]
			if direct {
				multiply(set, count, width, terms, left, aRow, 1, right, out, n, first > 0)
				return
			}
			multiply(set, count, width, terms, left, aRow, 1, right, products, cRow, false)
			var sum []float32
			if first > 0 {
				sum = out
			}
			set.Finish(out, n, products, cRow, zeros, sum, noFloor, count, width)
		})
	}
}
