package attack

import "github.com/adaad-go/adaad/threat"

// AutoAttack is the standard ensemble of Croce and Hein (ICML 2020, "Reliable evaluation of adversarial robustness with an
// ensemble of diverse parameter-free attacks"): what it is asked for in papers and leaderboards.
func AutoAttack(norm threat.Norm, eps float64) Suite {
	return Suite{"autoattack", []Attack{APGDCE(norm, eps), APGDT(norm, eps), FABT(norm, eps), NewSquare(norm, eps)}}
}

// AutoAttackPlus is their "plus" ensemble: more restarts, and untargeted attacks too.
func AutoAttackPlus(norm threat.Norm, eps float64) Suite {
	ce, dlr := APGDCE(norm, eps), APGDDLR(norm, eps)
	ce.Restarts, dlr.Restarts = 5, 5
	return Suite{"autoattack-plus", []Attack{ce, dlr, NewFAB(norm, eps), NewSquare(norm, eps), APGDT(norm, eps), FABT(norm, eps)}}
}

// AutoAttackRand is their ensemble for classifiers that answer at random: gradients are means of 20.
func AutoAttackRand(norm threat.Norm, eps float64) Suite {
	ce, dlr := APGDCE(norm, eps), APGDDLR(norm, eps)
	ce.Samples, dlr.Samples = 20, 20
	return Suite{"autoattack-rand", []Attack{ce, dlr}}
}
