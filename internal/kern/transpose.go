package kern

// Transpose computes dst[j·dstRow + i] = src[i·srcRow + j] for i in [0,rows) and j in [0,cols), both multiples of
// Lanes(), and fetches what lies ahead elements behind src into the cache, if that is memory at all. dst may not overlap
// src.
func (s *Set) Transpose(dst []float32, dstRow int, src []float32, srcRow, rows, cols, ahead int) {
	if rows%s.lanes != 0 || cols%s.lanes != 0 {
		panic("kern: Transpose of part of a vector")
	}
	if rows == 0 || cols == 0 {
		return
	}
	need("dst", dst, cols, dstRow, rows)
	need("src", src, rows, srcRow, cols)
	if s.asm == nil {
		for i := range rows {
			for j, x := range src[i*srcRow:][:cols] {
				dst[j*dstRow+i] = x
			}
		}
		return
	}
	for i := 0; i < rows; i += s.lanes {
		s.asm.transpose(&dst[i], dstRow, &src[i*srcRow], srcRow, cols/s.lanes, ahead)
	}
}
