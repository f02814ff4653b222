package zoo

// smallCNN is the network of the TRADES code for MNIST (after Carlini and Wagner 2017): four convolutions without
// padding, two poolings, three linear layers. width is that of its first two convolutions, 32 there; every other layer
// keeps its proportion to it. The authors' dropout before the second linear layer is left out: a network draws no random
// numbers here.
func smallCNN(width int) architecture {
	return func(s scope, x image, classes int) image {
		f := s.in("feature_extractor")
		unpadded := func(x image, name string, out int) image {
			return relu(f.conv(x, name, conv{out: out, size: 3, stride: 1, valid: true, bias: true}))
		}
		x = unpadded(unpadded(x, "conv1", width), "conv2", width)
		x = maxPool2(x)
		x = unpadded(unpadded(x, "conv3", 2*width), "conv4", 2*width)
		x = flatten(maxPool2(x))

		c, hidden := s.in("classifier"), max(200*width/32, 1)
		x = relu(c.linear(x, "fc1", hidden))
		x = relu(c.linear(x, "fc2", hidden))
		return c.linear(x, "fc3", classes)
	}
}
