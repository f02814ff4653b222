package attack

import "github.com/adaad-go/adaad/threat"

// FGSM is the fast gradient sign method (Goodfellow et al., ICLR 2015, section 4): one step of the whole radius from
// the image itself, on the cross-entropy,
//
//	x' = clip(x + eps · sign(∇ CE(f(x), y)))
func FGSM(norm threat.Norm, eps float64) PGD {
	return PGD{"fgsm", threat.Model{
		Norm: norm, Epsilon: eps, StepSize: eps, Steps: 1, Start: threat.FromImage,
	}, CrossEntropy}
}
