package golden

import "testing"

func TestGenerator(t *testing.T) {
	Near(t, "u", U("x", 3), []float64{-0.5975834313129111, 0.02193751455404125, 0.8816097008060189}, 1e-15)
}

func TestNHWC(t *testing.T) {
	got := NHWC([]float64{0, 1, 2, 3, 10, 11, 12, 13}, 1, 2, 2, 2).Value().([][][][]float32)
	if got[0][1][0][0] != 2 || got[0][1][0][1] != 12 || got[0][0][1][1] != 11 {
		t.Errorf("N,C,H,W to N,H,W,C gives %v", got)
	}
}
