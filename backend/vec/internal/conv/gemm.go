package conv

import "github.com/adaad-go/adaad/internal/kern"

// Matrix views element (i,j) at Data[i·Rows + j·Cols], so a transposed matrix is a view too.
type Matrix struct {
	Data       []float32
	Rows, Cols int // distance between neighbours in a column, and in a row
}

// gemmTerms and gemmCols bound the part of b that is packed at once; gemmTasks asks for that many blocks of rows.
const (
	gemmTerms = 512
	gemmCols  = 512
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
	height := min(8*rows, max(rows, roundUp(divUp(m, gemmTasks), rows)))
	cRow := oddLines(cols)
	zeros := make([]float32, cols)
	for first := 0; first < k; first += gemmTerms {
		terms := min(gemmTerms, k-first)
		par.Run(divUp(n, gemmCols), func(strip, _ int) {
			col := strip * gemmCols
			fillPanels(set, strips[strip*min(k, gemmTerms)*cols:], terms, min(gemmCols, n-col), func(i int) ([]float32, int) {
				return b.Data[(first+i)*b.Rows+col*b.Cols:], b.Cols
			})
		})
		par.Run(divUp(m, height)*divUp(n, gemmCols), func(task, worker int) {
			strip, row := task%divUp(n, gemmCols), task/divUp(n, gemmCols)*height
			col, count := strip*gemmCols, min(height, m-row)
			width := min(gemmCols, n-col)
			products := sc.worker(worker, height*cRow)
			multiply(set, count, width, terms, a.Data[row*a.Rows+first*a.Cols:], a.Rows, a.Cols,
				right{strips[strip*min(k, gemmTerms)*cols:], terms, 0}, products, cRow, false)
			out := c[row*n+col:]
			var sum []float32
			if first > 0 {
				sum = out
			}
			set.Finish(out, n, products, cRow, zeros, sum, noFloor, count, width)
		})
	}
}
