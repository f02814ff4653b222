package recipe

// natural is the small recipe of natural training: what a model is worth without any defence.
func natural(data, model string) Preset {
	return Preset{Settings: small("natural", data, model), Source: "the undefended baseline"}
}
