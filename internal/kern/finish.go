package kern

// Finish computes y = max(floor, a + b[j] + extra) for rows rows of cols columns, y's rows being yRow apart and a's aRow;
// extra is laid out like y, and may be nil or y itself. NaN stays NaN; a floor of -Inf is no floor.
func (s *Set) Finish(y []float32, yRow int, a []float32, aRow int, b, extra []float32, floor float32, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	need("y", y, rows, yRow, cols)
	need("a", a, rows, aRow, cols)
	need("b", b, 1, 0, cols)
	if extra != nil {
		need("extra", extra, rows, yRow, cols)
	}
	switch {
	case s.asm != nil && extra != nil:
		s.asm.finishAdd(&y[0], yRow, &a[0], aRow, &b[0], &extra[0], floor, rows, cols)
	case s.asm != nil:
		s.asm.finish(&y[0], yRow, &a[0], aRow, &b[0], floor, rows, cols)
	default:
		for i := range rows {
			y := y[i*yRow:][:cols]
			for j, v := range a[i*aRow:][:cols] {
				v += b[j]
				if extra != nil {
					v += extra[i*yRow+j]
				}
				if v < floor {
					v = floor
				}
				y[j] = v
			}
		}
	}
}

// FinishMask computes y = a + extra where the mask has a bit, and 0 elsewhere, for rows rows of cols columns; extra is laid
// out like y, and may be nil or y itself. The mask's rows are maskRow words apart, and its column first is the first of y.
func (s *Set) FinishMask(y []float32, yRow int, a []float32, aRow int, extra []float32, mask []uint16, maskRow, first, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	need("y", y, rows, yRow, cols)
	need("a", a, rows, aRow, cols)
	needMask(mask, rows, maskRow, first+cols)
	if extra != nil {
		need("extra", extra, rows, yRow, cols)
	}
	switch {
	case s.asm != nil && extra != nil && first%16 == 0:
		s.asm.finishAddMask(&y[0], yRow, &a[0], aRow, &extra[0], &mask[first/16], maskRow, rows, cols)
	case s.asm != nil && first%16 == 0:
		s.asm.finishMask(&y[0], yRow, &a[0], aRow, &mask[first/16], maskRow, rows, cols)
	default:
		for i := range rows {
			y, mask := y[i*yRow:][:cols], mask[i*maskRow:]
			for j, v := range a[i*aRow:][:cols] {
				if extra != nil {
					v += extra[i*yRow+j]
				}
				if !bit(mask, first+j) {
					v = 0
				}
				y[j] = v
			}
		}
	}
}
