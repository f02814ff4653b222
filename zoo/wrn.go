package zoo

// subBlock says what a WideResNet of the TRADES code does with its sub_block1: a second first stage that the authors
// made and never call, which most published checkpoints hold.
type subBlock bool

const (
	unusedSubBlock subBlock = true
	noSubBlock     subBlock = false
)

// wideResNet is a pre-activation network of depth 6n+4 with widths 16k, 32k, 64k (Zagoruyko and Komodakis 2016, "Wide
// Residual Networks") as in the code of TRADES (Zhang et al. 2019), which the robust teachers follow.
func wideResNet(depth, k int, sub subBlock) architecture {
	stage := func(s scope, x image, width, stride int) image {
		for i := range (depth - 4) / 6 {
			x = wideBlock(s.in("layer.%d", i), x, width, stride)
			stride = 1
		}
		return x
	}
	return func(s scope, x image, classes int) image {
		stem := s.conv(x, "conv1", conv{out: 16, size: 3, stride: 1})
		x = stage(s.in("block1"), stem, 16*k, 1)
		if sub == unusedSubBlock {
			s.unused(func(s scope) { stage(s.in("sub_block1"), stem, 16*k, 1) })
		}
		x = stage(s.in("block2"), x, 32*k, 2)
		x = stage(s.in("block3"), x, 64*k, 2)
		x = relu(s.norm(x, "bn1"))
		return s.linear(globalMean(x), "fc", classes)
	}
}

func wideBlock(s scope, x image, width, stride int) image {
	a := relu(s.norm(x, "bn1"))
	y := relu(s.convNorm(a, "conv1", "bn2", conv{out: width, size: 3, stride: stride}))
	y = s.conv(y, "conv2", conv{out: width, size: 3, stride: 1})
	if x.c != width {
		x = s.conv(a, "convShortcut", conv{out: width, size: 1, stride: stride})
	}
	return add(x, y)
}
