package attack

// Transfer makes an attack on another classifier, the surrogate, and proposes what it found to the one under attack, which
// it never asks (Papernot et al., AsiaCCS 2017).
type Transfer struct {
	Attack    Attack
	Surrogate Surrogate
}

// Surrogate is a classifier that stands for another, and how records name it.
type Surrogate struct {
	Name       string
	Classifier Differentiable
}

// Name is the attack's name.
func (a Transfer) Name() string { return "transfer" }

func (a Transfer) String() string { return "from " + a.Surrogate.Name + ", " + a.Attack.String() }

// Cost is nothing: the classifier under attack is not asked.
func (a Transfer) Cost(int) Cost { return Cost{} }

// Perturb attacks the surrogate.
func (a Transfer) Perturb(im *Image) ([]float32, error) {
	return a.Attack.Perturb(im.Against(a.Surrogate.Classifier))
}
