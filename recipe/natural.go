package recipe

// natural is the small recipe of natural training: what a model is worth without any defence.
func natural(data, model string) Preset {
	s := small("natural", data, model)
	s.ValidationSteps = 0
	return Preset{Settings: s, Source: "the undefended baseline"}
}
