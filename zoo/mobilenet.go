package zoo

// mobileNetV2 is the inverted residual network (Sandler et al. 2018, "MobileNetV2", table 2) with the strides used for
// 32x32 images: the stem and the second stage keep the image's size.
func mobileNetV2(s scope, x image, classes int) image {
	x = relu(s.convNorm(x, "conv1", "bn1", conv{out: 32, size: 3, stride: 1}))
	layer := 0
	for _, stage := range []struct{ expansion, width, blocks, stride int }{
		{1, 16, 1, 1}, {6, 24, 2, 1}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
	} {
		stride := stage.stride
		for range stage.blocks {
			x = invertedResidual(s.in("layers.%d", layer), x, stage.expansion*x.c, stage.width, stride)
			stride = 1
			layer++
		}
	}
	x = relu(s.convNorm(x, "conv2", "bn2", conv{out: 1280, size: 1, stride: 1}))
	return s.linear(globalMean(x), "linear", classes)
}

func invertedResidual(s scope, x image, hidden, width, stride int) image {
	y := relu(s.convNorm(x, "conv1", "bn1", conv{out: hidden, size: 1, stride: 1}))
	y = relu(s.convNorm(y, "conv2", "bn2", conv{out: hidden, size: 3, stride: stride, depthwise: true}))
	y = s.convNorm(y, "conv3", "bn3", conv{out: width, size: 1, stride: 1})
	if stride != 1 {
		return y
	}
	if x.c != width {
		x = s.convNorm(x, "shortcut.0", "shortcut.1", conv{out: width, size: 1, stride: 1})
	}
	return add(y, x)
}
