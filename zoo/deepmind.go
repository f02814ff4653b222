package zoo

// activation is an elementwise function between layers.
type activation func(x image) image

// deepMindWRN is the WideResNet of DeepMind's robust models (Gowal et al. 2020, "Uncovering the Limits of Adversarial
// Training against Norm-Bounded Adversarial Examples"): TRADES' but for its names, its activation and TensorFlow's padding.
// Its code normalises images with the data's mean and deviation, which checkpoints do not hold.
func deepMindWRN(depth, k int, act activation) architecture {
	return func(s scope, x image, classes int) image {
		x = s.conv(x, "init_conv", conv{out: 16, size: 3, stride: 1})
		for group := range 3 {
			for i := range (depth - 4) / 6 {
				x = deepMindWideBlock(s.in("layer.%d.block.%d", group, i), x, 16*k<<group, firstStride(group, i), act)
			}
		}
		x = act(s.norm(x, "batchnorm"))
		return s.linear(globalMean(x), "logits", classes)
	}
}

func deepMindWideBlock(s scope, x image, width, stride int, act activation) image {
	a := act(s.norm(x, "batchnorm_0"))
	y := act(s.convNorm(a, "conv_0", "batchnorm_1", conv{out: width, size: 3, stride: stride, same: true}))
	y = s.conv(y, "conv_1", conv{out: width, size: 3, stride: 1})
	if x.c != width {
		x = s.conv(a, "shortcut", conv{out: width, size: 1, stride: stride})
	}
	return add(x, y)
}

// deepMindPreActResNet18 is the PreActResNet-18 of the same models. Its shortcuts are 3x3 convolutions of what enters a block.
func deepMindPreActResNet18(act activation) architecture {
	return func(s scope, x image, classes int) image {
		x = s.conv(x, "conv_2d", conv{out: 64, size: 3, stride: 1})
		for stage := range 4 {
			for i := range 2 {
				x = deepMindPreActBlock(s.in("layer_%d.%d", stage, i), x, 64<<stage, firstStride(stage, i), act)
			}
		}
		x = act(s.norm(x, "batchnorm"))
		return s.linear(globalMean(x), "logits", classes)
	}
}

func deepMindPreActBlock(s scope, x image, width, stride int, act activation) image {
	a := act(s.norm(x, "batchnorm_0"))
	y := act(s.convNorm(a, "conv_2d_1", "batchnorm_1", conv{out: width, size: 3, stride: stride, same: true}))
	y = s.conv(y, "conv_2d_2", conv{out: width, size: 3, stride: 1})
	if stride != 1 || x.c != width {
		x = s.conv(x, "shortcut", conv{out: width, size: 3, stride: stride, same: true})
	}
	return add(x, y)
}

// DeepMindConstants are the mean and the deviation that the code of DeepMind's networks normalises images of the CIFAR
// sets with, told apart by the number of classes; nil for others.
func DeepMindConstants(classes int) (mean, std []float64) {
	switch classes {
	case 10:
		return []float64{0.4914, 0.4822, 0.4465}, []float64{0.2471, 0.2435, 0.2616}
	case 100:
		return []float64{0.5071, 0.4865, 0.4409}, []float64{0.2673, 0.2564, 0.2762}
	}
	return nil, nil
}
