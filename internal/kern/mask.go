package kern

import "fmt"

// A mask has a bit for every number of a matrix: bit j mod 16 of word j/16 of a row is that of column j. A row takes
// MaskWords(columns) words.

// MaskWords is the number of words in a row of a mask.
func MaskWords(cols int) int { return (cols + 15) / 16 }

// bit is that of column j of a row.
func bit(row []uint16, j int) bool { return row[j/16]>>(j%16)&1 != 0 }

// needMask panics unless a mask has room for rows of cols columns that start every stride words.
func needMask(mask []uint16, rows, stride, cols int) {
	if words := (rows-1)*stride + MaskWords(cols); stride < 0 || len(mask) < words {
		panic(fmt.Sprintf("kern: mask has %d words, %d rows of %d columns every %d words need %d", len(mask), rows, cols, stride, words))
	}
}

// Positive writes the mask of x > 0 for rows of cols columns that follow each other in both; NaN is not above 0. Bits
// beyond a row's columns are cleared.
func (s *Set) Positive(mask []uint16, x []float32, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	needMask(mask, rows, MaskWords(cols), cols)
	need("x", x, rows, cols, cols)
	if s.asm != nil {
		if cols%16 == 0 {
			rows, cols = 1, rows*cols
		}
		s.asm.positive(&mask[0], &x[0], rows, cols)
		return
	}
	for i := range rows {
		row := mask[i*MaskWords(cols):][:MaskWords(cols)]
		clear(row)
		for j, v := range x[i*cols:][:cols] {
			if v > 0 {
				row[j/16] |= 1 << (j % 16)
			}
		}
	}
}
