"""Writes and reads checkpoints with PyTorch, in the forms that people and RobustBench have them, for the tests of package
weights.

    python3 checkpoints.py write FOLDER

leaves in FOLDER a file for each case and cases.json, with the network's name here, images, and the logits that PyTorch
computed from exactly what is in the file.

    python3 checkpoints.py read FOLDER

loads what exports.json in FOLDER lists (file, name of the module it is for) strictly into that module and writes the
module's logits for the same images to logits.json.
"""
import argparse
import collections
import json
import sys

import numpy
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def conv(inputs, outputs, size, stride=1, padding=None):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2 if padding is None else padding, bias=False)


class Basic(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class PreAct(nn.Module):
    activated_shortcut = False

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(conv(inputs, width, 1, stride))

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(a))))
        if hasattr(self, "shortcut"):
            x = self.shortcut(a if self.activated_shortcut else x)
        return x + y


class RicePreAct(PreAct):
    activated_shortcut = True


class ResNet(nn.Module):
    """ResNets, and PreActResNets with or without a last norm."""

    def __init__(self, block, width, blocks, last_norm=False):
        super().__init__()
        self.conv1 = conv(3, width, 3)
        if block is Basic:
            self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, n in enumerate(blocks):
            layers = []
            for i in range(n):
                layers.append(block(inputs, width << stage, 2 if stage > 0 and i == 0 else 1))
                inputs = width << stage
            setattr(self, "layer%d" % (stage + 1), nn.Sequential(*layers))
        self.stages = len(blocks)
        if last_norm:
            self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x):
        x = self.conv1(x)
        if hasattr(self, "bn1"):
            x = F.relu(self.bn1(x))
        for stage in range(self.stages):
            x = getattr(self, "layer%d" % (stage + 1))(x)
        if hasattr(self, "bn"):
            x = F.relu(self.bn(x))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.convShortcut = conv(inputs, width, 1, stride) if inputs != width else None

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return y + (x if self.convShortcut is None else self.convShortcut(a))


class Group(nn.Module):
    def __init__(self, attribute, block, n, inputs, width, stride):
        super().__init__()
        layers = [block(inputs if i == 0 else width, width, stride if i == 0 else 1) for i in range(n)]
        setattr(self, attribute, nn.Sequential(*layers))
        self.attribute = attribute

    def forward(self, x):
        return getattr(self, self.attribute)(x)


class WideResNet(nn.Module):
    """The form of TRADES, with the sub_block1 that it never runs, and of LTD, without."""

    def __init__(self, depth, k, sub_block):
        super().__init__()
        n = (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        self.block1 = Group("layer", WideBlock, n, 16, 16 * k, 1)
        if sub_block:
            self.sub_block1 = Group("layer", WideBlock, n, 16, 16 * k, 1)
        self.block2 = Group("layer", WideBlock, n, 16 * k, 32 * k, 2)
        self.block3 = Group("layer", WideBlock, n, 32 * k, 64 * k, 2)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, 10)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


def pad_same(x, stride):
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


class DeepMindWideBlock(nn.Module):
    activation = staticmethod(F.silu)

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.stride = stride
        self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride, 0)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.shortcut = conv(inputs, width, 1, stride) if inputs != width else None

    def forward(self, x):
        a = self.activation(self.batchnorm_0(x))
        y = self.conv_1(self.activation(self.batchnorm_1(self.conv_0(pad_same(a, self.stride)))))
        return y + (x if self.shortcut is None else self.shortcut(a))


class DeepMindReLUBlock(DeepMindWideBlock):
    activation = staticmethod(F.relu)


class DeepMindWRN(nn.Module):
    def __init__(self, depth, k, block):
        super().__init__()
        n = (depth - 4) // 6
        self.activation = block.activation
        self.init_conv = conv(3, 16, 3)
        self.layer = nn.Sequential(
            Group("block", block, n, 16, 16 * k, 1),
            Group("block", block, n, 16 * k, 32 * k, 2),
            Group("block", block, n, 32 * k, 64 * k, 2))
        self.batchnorm = nn.BatchNorm2d(64 * k)
        self.logits = nn.Linear(64 * k, 10)

    def forward(self, x):
        x = self.layer(self.init_conv(x))
        return self.logits(self.activation(self.batchnorm(x)).mean((2, 3)))


class DeepMindPreActBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.stride = stride
        self.batchnorm_0, self.conv_2d_1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride, 0)
        self.batchnorm_1, self.conv_2d_2 = nn.BatchNorm2d(width), conv(width, width, 3)
        if stride != 1 or inputs != width:
            self.shortcut = conv(inputs, width, 3, stride, 0)

    def forward(self, x):
        y = self.conv_2d_1(pad_same(F.silu(self.batchnorm_0(x)), self.stride))
        y = self.conv_2d_2(F.silu(self.batchnorm_1(y)))
        return y + (self.shortcut(pad_same(x, self.stride)) if hasattr(self, "shortcut") else x)


class DeepMindPreAct(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_2d = conv(3, 64, 3)
        for stage in range(4):
            inputs, width, stride = max(64, 32 << stage), 64 << stage, 1 if stage == 0 else 2
            setattr(self, "layer_%d" % stage, nn.Sequential(
                DeepMindPreActBlock(inputs, width, stride), DeepMindPreActBlock(width, width, 1)))
        self.batchnorm, self.logits = nn.BatchNorm2d(512), nn.Linear(512, 10)

    def forward(self, x):
        x = self.conv_2d(x)
        for stage in range(4):
            x = getattr(self, "layer_%d" % stage)(x)
        return self.logits(F.silu(self.batchnorm(x)).mean((2, 3)))


def normalise(x):
    mean, std = (torch.tensor(v, dtype=x.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


class RobustBenchNormalised(ResNet):
    """RobustBench's way: buffers mu and sigma."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("mu", torch.zeros(1, 3, 1, 1))
        self.register_buffer("sigma", torch.ones(1, 3, 1, 1))

    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)


class DeepMindNormalised(DeepMindWRN):
    """DeepMind's way: constants."""

    def forward(self, x):
        return super().forward(normalise(x))


def settle(net):
    """Gives batch norms values that a mistake would show in."""
    torch.manual_seed(7)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.uniform_(0.8, 1.2)
            m.bias.data.uniform_(-0.1, 0.1)
            m.running_mean.uniform_(-0.1, 0.1)
            m.running_var.uniform_(0.6, 1.4)
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
    return net.eval()


def channels_last(state):
    return collections.OrderedDict(
        (k, v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v) for k, v in state.items())


def one_storage(state):
    """All tensors as views of one storage, one after another, with a gap before the first."""
    kept = [(k, v) for k, v in state.items() if v.dtype == torch.float32]
    block = torch.zeros(5 + sum(v.numel() for _, v in kept))
    views, at = collections.OrderedDict(), 5
    for k, v in kept:
        views[k] = block[at:at + v.numel()].view(v.shape)
        views[k].copy_(v)
        at += v.numel()
    return views


def transposed(state):
    """Linear weights as transposes of what is stored."""
    return collections.OrderedDict((k, v.t().contiguous().t() if v.dim() == 2 else v) for k, v in state.items())


def write(folder):
    torch.manual_seed(1)
    images = torch.rand(4, 3, 32, 32)
    cases = []

    def case(name, model, net, checkpoint, normalised=False, hint="", **how):
        """net computes what the file holds; its logits are taken in float64."""
        path = "%s.pt" % name
        torch.save(checkpoint, "%s/%s" % (folder, path), **how)
        with torch.no_grad():
            x = images.double()
            logits = net.double()(normalise(x) if normalised else x)
        net.float()
        cases.append({"file": path, "model": model, "hint": hint, "logits": logits.flatten().tolist()})

    small = lambda: settle(ResNet(Basic, 8, [1, 1, 1]))
    net = small()
    legacy = {"_use_new_zipfile_serialization": False}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        name = str(dtype).split(".")[1]
        state = collections.OrderedDict(
            (k, v.to(dtype) if v.is_floating_point() else v) for k, v in net.state_dict().items())
        rounded = small()
        rounded.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        case("zip-" + name, "resnet8-w8", rounded, state)
        case("legacy-" + name, "resnet8-w8", rounded, state, **legacy)
    state = net.state_dict()
    for protocol in (1, 3, 4, 5):
        case("zip-protocol%d" % protocol, "resnet8-w8", net, state, pickle_protocol=protocol)
        case("legacy-protocol%d" % protocol, "resnet8-w8", net, state, pickle_protocol=protocol, **legacy)
    for form in (channels_last, one_storage, transposed):
        case("zip-" + form.__name__, "resnet8-w8", net, form(state))
        case("legacy-" + form.__name__, "resnet8-w8", net, form(state), **legacy)
    case("parameters", "resnet8-w8", net,
         collections.OrderedDict((k, nn.Parameter(v) if v.is_floating_point() else v) for k, v in state.items()))

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    other = collections.OrderedDict((k, torch.zeros_like(v)) for k, v in state.items())
    data_parallel = collections.OrderedDict(("module." + k, v) for k, v in state.items())
    case("state_dict", "resnet8-w8", net,
         {"epoch": 3, "best": torch.tensor(0.5), "state_dict": data_parallel, "optimizer": optimizer.state_dict(),
          "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")), "acc": numpy.float64(61.5), "losses": numpy.ones(3)})
    case("net", "resnet8-w8", net, {"net": state, "acc": 61.5, "ema": other})
    case("model", "resnet8-w8", net,
         {"model": collections.OrderedDict(("module.model." + k, v) for k, v in state.items())}, **legacy)
    case("ema", "resnet8-w8", net, {"ema": state, "epoch": 1})

    sequential = settle(ResNet(Basic, 8, [1, 1, 1]))
    constants = [torch.tensor(v) for v in (MEAN, STD)]
    for mean, std, shape in (("mean", "std", (3,)), ("mu", "sigma", (1, 3, 1, 1)), ("normalize.mean", "normalize.std", (3, 1, 1))):
        buffers = [(mean, constants[0].view(shape)), (std, constants[1].view(shape))]
        case("inside-" + mean, "resnet8-w8-normalised", sequential,
             collections.OrderedDict(buffers + list(sequential.state_dict().items())), normalised=True)
    case("inside-sequential", "resnet8-w8-normalised", sequential, collections.OrderedDict(
        [("0.mean", constants[0]), ("0.std", constants[1])] + [("1." + k, v) for k, v in sequential.state_dict().items()]),
        normalised=True)
    case("torchvision-names", "resnet8-w8", net, collections.OrderedDict(
        (k.replace("shortcut", "downsample").replace("linear", "fc"), v) for k, v in state.items()))

    for name, model, hint, net in (
            ("resnet18", "resnet18", "", ResNet(Basic, 64, [2, 2, 2, 2])),
            ("preact-rice", "preact-resnet18", "", ResNet(RicePreAct, 64, [2, 2, 2, 2], last_norm=True)),
            ("preact-wong", "preact-resnet18-wong", "", ResNet(PreAct, 64, [2, 2, 2, 2])),
            ("wrn-trades", "wrn-16-2", "", WideResNet(16, 2, True)),
            ("wrn-ltd", "wrn-16-2-ltd", "", WideResNet(16, 2, False)),
            ("wrn-deepmind", "wrn-16-2-dm-normalised", "", DeepMindWRN(16, 2, DeepMindWideBlock)),
            ("wrn-deepmind-relu", "wrn-16-2-dm-relu-normalised", "wrn-16-2-dm-relu", DeepMindWRN(16, 2, DeepMindReLUBlock)),
            ("preact-deepmind", "preact-resnet18-dm-normalised", "", DeepMindPreAct())):
        case(name, model, settle(net), net.state_dict(), normalised="-dm" in model, hint=hint)

    with open(folder + "/cases.json", "w") as f:
        json.dump({"torch": torch.__version__, "images": images.flatten().tolist(), "cases": cases}, f)


MODULES = {
    "resnet8-w8": lambda: ResNet(Basic, 8, [1, 1, 1]),
    "resnet8-w8-normalised": lambda: RobustBenchNormalised(Basic, 8, [1, 1, 1]),
    "wrn-16-2-dm-normalised": lambda: DeepMindNormalised(16, 2, DeepMindWideBlock),
}


def read(folder):
    images = torch.tensor(json.load(open(folder + "/cases.json"))["images"]).view(-1, 3, 32, 32)
    results = []
    for export in json.load(open(folder + "/exports.json")):
        path = folder + "/" + export["file"]
        state = torch.load(path) if path.endswith(".pt") else read_safetensors(path)
        net = MODULES[export["module"]]()
        print(export, net.load_state_dict(state, strict=True))
        with torch.no_grad():
            results.append(net.eval()(images).flatten().tolist())
    json.dump(results, open(folder + "/logits.json", "w"))


def read_safetensors(path):
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
    data = open(path, "rb").read()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {k: torch.frombuffer(bytearray(data[8 + n:]), dtype=types[v["dtype"]], offset=v["data_offsets"][0],
                                count=torch.Size(v["shape"]).numel()).view(v["shape"]) for k, v in header.items()}


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](sys.argv[2])
