package zoo

// preActResNet18 is ResNet-18 with batch norm and ReLU before each convolution (He et al. 2016, "Identity Mappings in
// Deep Residual Networks") and a last norm before pooling, in the form of Rice et al. 2020, "Overfitting in
// adversarially robust deep learning".
func preActResNet18(s scope, x image, classes int) image {
	x = preActStages(s, x, func(_, activated image) image { return activated })
	x = relu(s.norm(x, "bn"))
	return s.linear(globalMean(x), "linear", classes)
}

// preActResNet18Wong is that of Wong et al. 2020, "Fast is better than free", and of Andriushchenko and Flammarion 2020:
// without the last norm and ReLU, and with shortcuts of what enters a block.
func preActResNet18Wong(s scope, x image, classes int) image {
	x = preActStages(s, x, func(entering, _ image) image { return entering })
	return s.linear(globalMean(x), "linear", classes)
}

// preActStages is all but the end. shortcut chooses what projections take: what enters a block, before or after its
// first norm and ReLU.
func preActStages(s scope, x image, shortcut func(entering, activated image) image) image {
	x = s.conv(x, "conv1", conv{out: 64, size: 3, stride: 1})
	for stage := range 4 {
		for i := range 2 {
			s, width, stride := s.in("layer%d.%d", stage+1, i), 64<<stage, firstStride(stage, i)
			a := relu(s.norm(x, "bn1"))
			y := relu(s.convNorm(a, "conv1", "bn2", conv{out: width, size: 3, stride: stride}))
			y = s.conv(y, "conv2", conv{out: width, size: 3, stride: 1})
			if stride != 1 || x.c != width {
				x = s.conv(shortcut(x, a), "shortcut.0", conv{out: width, size: 1, stride: stride})
			}
			x = add(y, x)
		}
	}
	return x
}
