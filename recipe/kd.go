package recipe

// kd is the small recipe of plain distillation, with the common alpha 0.9 and temperature 4: it transfers accuracy, and
// shows that robustness does not come with it.
func kd(data, model string) Preset {
	s := small("kd", data, model)
	s.Alpha, s.Temperature, s.Reduction = 0.9, 4, "batchmean"
	s.ValidationSteps = 0
	return Preset{Settings: s, Source: "Hinton et al. 2015, for contrast", Needs: "any " + data + " model"}
}
