package attack

import "github.com/adaad-go/adaad/threat"

// CW is the CW-inf attack of the adversarial training papers: the margin loss of Carlini and Wagner (S&P 2017, section
// V.A, f6 with κ = 50) under PGD: 30 steps of a quarter of the radius, 2/255 at 8/255, from a uniform start.
func CW(norm threat.Norm, eps float64) PGD {
	a := NewPGD(norm, eps, 30)
	a.Label, a.Loss = "cw", Margin
	return a
}
