package recipe

// adaad is the small recipe of AdaAD: half of what the small teacher recipe makes, distilled from it. The reduction is
// batchmean, which with a short run and a one-cycle rate uses the rate that the schedule says; the authors' mean is ten
// times smaller.
func adaad(data, model string) Preset {
	s := small("adaad", data, model)
	s.Search = nearby(5.0/255, 2)
	s.Alpha, s.Temperature, s.Reduction = 1, 1, "batchmean"
	s.ForwardClean = true
	return Preset{Settings: s, Source: "Huang et al. 2023, scaled to one CPU", Needs: "a robust " + data + " model"}
}

// AdaADPaper is AdaAD on CIFAR-10 with a ResNet-18 student as its authors' code runs it for the table at eps 8/255: 200
// epochs, the rate divided by 10 at 100 and 150, weight decay 5e-4, ten steps of 2/255, alpha 1, KL averaged over images
// and classes.
func AdaADPaper() Preset {
	s := small("adaad", "cifar10", "resnet18")
	s.Recipe = "adaad-cifar10-resnet18"
	s.Search = nearby(2.0/255, 10)
	s.Alpha, s.Temperature, s.Reduction = 1, 1, "mean"
	s.ForwardClean = true
	s.Epochs, s.Schedule, s.Milestones, s.MilestonesOf = 200, "piecewise", []int{100, 150}, 200
	return Preset{
		Settings: s, Needs: "LTD's WRN-34-20 or WRN-34-10",
		Source: "Huang et al. 2023, authors' code; paper: 85.58 clean, 51.37 AutoAttack (WRN-34-20)",
	}
}
