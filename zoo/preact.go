package zoo

// preActResNet18 is ResNet-18 with batch norm and ReLU before each convolution (He et al. 2016, "Identity Mappings in
// Deep Residual Networks") and a last norm before pooling, in the form of Rice et al. 2020, "Overfitting in
// adversarially robust deep learning".
func preActResNet18(s scope, x image, classes int) image {
	x = s.conv(x, "conv1", conv{out: 64, size: 3, stride: 1})
	for stage := range 4 {
		for i := range 2 {
			stride := 1
			if stage > 0 && i == 0 {
				stride = 2
			}
			x = preActBlock(s.in("layer%d.%d", stage+1, i), x, 64<<stage, stride)
		}
	}
	x = relu(s.norm(x, "bn"))
	return s.linear(globalMean(x), "linear", classes)
}

func preActBlock(s scope, x image, width, stride int) image {
	a := relu(s.norm(x, "bn1"))
	y := relu(s.convNorm(a, "conv1", "bn2", conv{out: width, size: 3, stride: stride}))
	y = s.conv(y, "conv2", conv{out: width, size: 3, stride: 1})
	if stride != 1 || x.c != width {
		x = s.conv(a, "shortcut.0", conv{out: width, size: 1, stride: stride})
	}
	return add(y, x)
}
