package recipe

// nearby is the papers' ball on CIFAR-10 with the start of TRADES and most methods after it: eps 8/255 from x + 0.001
// N(0,1), batch norm in eval mode.
func nearby(stepSize Radius, steps int) Search {
	return Search{Epsilon: 8.0 / 255, StepSize: stepSize, Steps: steps, Start: "gaussian", BatchNorm: "eval"}
}

// anywhere is Madry's search, which ARD and its kin took over: from a uniform point of the ball, batch norm in train mode.
func anywhere(stepSize Radius, steps int) Search {
	s := nearby(stepSize, steps)
	s.Start, s.BatchNorm = "uniform", "train"
	return s
}

// equations fills in a method's own settings as its paper gives them: the numbers in its equations, KL summed over the
// classes and averaged over the images, and no forward pass that the loss does not need. The search takes steps of
// stepSize.
func (s *Settings) equations(stepSize Radius, steps int) {
	s.Search = nearby(stepSize, steps)
	cifar100 := s.Data == "cifar100"
	switch s.Method {
	case "natural":
		s.Search = Search{}
	case "kd":
		s.Search = Search{}
		s.Alpha, s.Temperature, s.Reduction = 0.9, 4, "batchmean"
	case "pgd-at":
		s.Search = anywhere(stepSize, steps)
	case "trades":
		s.Beta, s.Reduction = 6, "batchmean"
	case "ard":
		s.Search = anywhere(stepSize, steps)
		s.Alpha, s.Temperature, s.Reduction = 1, 30, "batchmean"
	case "iad-1":
		s.Search = anywhere(stepSize, steps)
		s.Beta, s.Begin, s.Temperature, s.Reduction = 0.1, 60, 1, "batchmean"
	case "iad-2":
		s.Search = anywhere(stepSize, steps)
		s.Alpha, s.NaturalWeight, s.Beta, s.Begin, s.Temperature, s.Reduction = 0.5, 0.25, 0.1, 40, 1, "batchmean"
	case "rslad":
		s.Alpha, s.Scale, s.Reduction = 5.0/6, 1, "batchmean"
	case "adaad":
		s.Alpha, s.Temperature, s.Reduction = 1, 1, "batchmean"
	case "adaiad":
		s.Beta, s.Begin, s.Temperature, s.Reduction = 0.1, 60, 30, "batchmean"
	case "igdm":
		s.Base, s.Lambda = "adaad", 1
		s.Alpha, s.Temperature, s.Reduction = 1, 1, "batchmean"
	case "saad":
		s.Lambda, s.Correction, s.EntropyScale = 1, 1, 5
	case "mtard":
		s.Beta, s.WeightRate, s.Reduction = 1, 0.025, "batchmean"
	case "fair-ard":
		s.Search = anywhere(stepSize, steps)
		s.Alpha, s.Beta, s.Temperature, s.Reduction = 1, 2, 30, "batchmean"
	case "score":
		s.Search.Start, s.Search.ClipStart, s.Search.BatchNorm = "uniform", true, "frozen"
		s.Beta = 3
	case "ccat":
		s.Search.Start = "uniform"
		s.Power, s.CleanShare = 10, 0.5
	}
	if cifar100 && s.Lambda > 0 {
		s.Lambda = 10
	}
}

// asCode changes a method's settings to what its authors' code does where that differs from its equations, and says
// whether it does.
func (s *Settings) asCode() bool {
	cifar100 := s.Data == "cifar100"
	switch s.Method {
	case "pgd-at": // that of AdaAD's authors
		s.Search = nearby(s.Search.StepSize, s.Search.Steps)
		s.Search.ClipStart, s.ForwardClean = true, true
	case "trades", "iad-1", "adaiad":
		s.ForwardClean = true
	case "ard", "fair-ard":
		s.Reduction, s.ForwardClean = "mean", true
	case "rslad":
		s.Reduction = "mean"
		if cifar100 {
			s.Scale = 10
		}
	case "mtard":
		s.Reduction = "mean"
	case "adaad":
		s.ForwardClean = true
		if !cifar100 {
			s.Reduction = "mean"
		}
	default:
		return s.Method == "iad-2" // its schedule
	}
	return true
}
