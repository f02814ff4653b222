package zoo

// resnet is a residual network for small images (He et al. 2016, "Deep Residual Learning for Image Recognition"): a
// 3x3 stem without pooling, stages of basic blocks that double the width and halve the image, projection shortcuts.
//
//	resnet20, 32, 56 ...: three stages of n blocks, depth 6n+2, widths 16, 32, 64 (section 4.2)
//	resnet18, 34:         four stages, widths 64 to 512, the ImageNet form with a CIFAR stem
func resnet(width int, blocks ...int) architecture {
	return func(s scope, x image, classes int) image {
		x = relu(s.convNorm(x, "conv1", "bn1", conv{out: width, size: 3, stride: 1}))
		for stage, n := range blocks {
			for i := range n {
				x = basicBlock(s.in("layer%d.%d", stage+1, i), x, width<<stage, firstStride(stage, i))
			}
		}
		return s.linear(globalMean(x), "linear", classes)
	}
}

func basicBlock(s scope, x image, width, stride int) image {
	y := relu(s.convNorm(x, "conv1", "bn1", conv{out: width, size: 3, stride: stride}))
	y = s.convNorm(y, "conv2", "bn2", conv{out: width, size: 3, stride: 1})
	if stride != 1 || x.c != width {
		x = s.convNorm(x, "shortcut.0", "shortcut.1", conv{out: width, size: 1, stride: stride})
	}
	return relu(add(y, x))
}
