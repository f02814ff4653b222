package kern

import "testing"

// Every size and stride, unaligned, against the definition; the result is exact.
func TestTranspose(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		r := noise(3)
		for _, rows := range []int{0, s.lanes, 2 * s.lanes, 3 * s.lanes} {
			for _, cols := range []int{0, s.lanes, 2 * s.lanes, 5 * s.lanes} {
				for _, pad := range []int{0, 3} {
					srcRow, dstRow := cols+pad, rows+2*pad
					src, dst := newGuarded(max(1, rows*srcRow), r.next), newGuarded(max(1, cols*dstRow), nan)
					s.Transpose(dst.v, dstRow, src.v, srcRow, rows, cols, 1<<20)
					dst.check(t, "Transpose")
					if rows == 0 {
						dstRow = 0
					}
					for j := range cols {
						for i := range dstRow {
							got := dst.v[j*dstRow+i]
							switch {
							case i >= rows && got == got:
								t.Fatalf("%dx%d: wrote between the rows", rows, cols)
							case i < rows && got != src.v[i*srcRow+j]:
								t.Fatalf("%dx%d: row %d, column %d is %v, expected %v", rows, cols, j, i, got, src.v[i*srcRow+j])
							}
						}
					}
				}
			}
		}
	})
}

func BenchmarkTranspose(b *testing.B) {
	for _, s := range Sets() {
		b.Run(s.Name(), func(b *testing.B) {
			src, dst := make([]float32, 512*32), make([]float32, 512*32)
			b.SetBytes(int64(4 * len(src)))
			for b.Loop() {
				for i := 0; i < 512; i += 32 {
					s.Transpose(dst[i*32:], 32, src[i*32:], 32, 32, 32, 1024)
				}
			}
		})
	}
}
