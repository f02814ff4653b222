"""python export.py DIR: networks as PyTorch's exporter writes them. For each, DIR gets NAME.onnx and, as raw float32, NAME.images
[4,3,16,16], NAME.weights [4,5], NAME.logits [4,5] and NAME.gradient, that of sum(weights * logits) by the images."""
import os
import sys
import warnings

import torch
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")


class CNN(nn.Module):
    """Batch norms with and without a convolution before them, pooling in every form, a depthwise and a grouped convolution."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.49, 0.48, 0.45]).reshape(1, 3, 1, 1))
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.grouped = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4, dilation=1), nn.ReLU6())
        self.norm = nn.BatchNorm2d(16)
        self.slope = nn.PReLU(16)
        self.last = nn.Linear(16 * 2 * 2 + 16, 5)

    def forward(self, x):
        x = self.stem((x - self.mean) / 0.25)
        x = x + self.deep(x)
        x = torch.cat([self.grouped(x)[:, :8], F.silu(self.grouped(x)[:, 8:])], 1)
        x = self.slope(self.norm(x))
        whole = x.mean((2, 3))
        x = F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1), 2)
        x = torch.flatten(F.dropout(x, 0.5, self.training), 1)
        return self.last(torch.cat([x, whole], 1))


class ViT(nn.Module):
    """A vision transformer of one block."""

    def __init__(self, width=12, heads=2):
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        a = F.softmax(q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5, -1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(n, t, c))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm3(x)[:, 0])


for name, make in (("cnn", CNN), ("vit", ViT)):
    torch.manual_seed(1)
    net = make()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.5, 0.5)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)
    net.eval()
    x, w = torch.rand(4, 3, 16, 16, requires_grad=True), torch.rand(4, 5) - 0.5
    logits = net(x)
    (gradient,) = torch.autograd.grad((w * logits).sum(), x)
    for what, values in (("images", x), ("weights", w), ("logits", logits), ("gradient", gradient)):
        values.detach().numpy().tofile(os.path.join(sys.argv[1], f"{name}.{what}"))
    torch.onnx.export(net, x.detach()[:1], os.path.join(sys.argv[1], name + ".onnx"), opset_version=int(sys.argv[2]),
                      input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
