"""Runs the authors' AutoAttack on what bench/autoattack has written, and prints seconds and images left as JSON.

Arguments: folder of the authors' code, folder of the values, norm, radius, ensemble, threads, batch size.
"""
import json
import re
import sys
import time

import numpy
import torch
from torch import nn

code, folder, norm, eps, version, threads, batch = sys.argv[1:]
sys.path.insert(0, code)
from autoattack import AutoAttack  # noqa: E402

torch.set_num_threads(int(threads))
what = json.load(open(folder + "/what.json"))
values = torch.from_numpy(numpy.fromfile(folder + "/values", dtype="<f4"))
state = {}
for entry in what["state"]:
    size = int(numpy.prod(entry["shape"]))
    state[entry["name"]], values = values[:size].reshape(entry["shape"]), values[size:]
images = values.reshape(what["shape"])
labels = torch.tensor(what["labels"])


class ChannelsLast(torch.autograd.Function):
    """To the layout in which PyTorch convolves fastest on CPUs; gradients come back in the one that attacks view."""

    @staticmethod
    def forward(ctx, x):
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous()


class Block(nn.Module):
    """Two convolutions and a shortcut, which is a projection where the state has one."""

    def __init__(self, name):
        super().__init__()
        first, second = state[name + ".conv1.weight"], state[name + ".conv2.weight"]
        projects = name + ".shortcut.0.weight" in state
        stride = 2 if projects and first.shape[0] != first.shape[1] else 1
        self.conv1 = nn.Conv2d(first.shape[1], first.shape[0], 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first.shape[0])
        self.conv2 = nn.Conv2d(second.shape[1], second.shape[0], 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(second.shape[0])
        self.shortcut = nn.Sequential()
        if projects:
            self.shortcut = nn.Sequential(
                nn.Conv2d(first.shape[1], first.shape[0], 1, stride, bias=False), nn.BatchNorm2d(first.shape[0]))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet that the state belongs to."""

    def __init__(self):
        super().__init__()
        stem, linear = state["conv1.weight"], state["linear.weight"]
        self.conv1 = nn.Conv2d(stem.shape[1], stem.shape[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem.shape[0])
        self.stages = []
        while f"layer{len(self.stages) + 1}.0.conv1.weight" in state:
            name = f"layer{len(self.stages) + 1}"
            count = len([key for key in state if key.startswith(name + ".") and key.endswith(".conv1.weight")])
            self.add_module(name, nn.Sequential(*[Block(f"{name}.{i}") for i in range(count)]))
            self.stages.append(name)
        self.linear = nn.Linear(linear.shape[1], linear.shape[0])

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(ChannelsLast.apply(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.linear(x.mean(dim=(2, 3)))


model = ResNet()
missing, unexpected = model.load_state_dict(state, strict=False)
if unexpected or [name for name in missing if not name.endswith("num_batches_tracked")]:
    sys.exit(f"this is no CIFAR ResNet: missing {missing}, unexpected {unexpected}")
model = model.eval().to(memory_format=torch.channels_last)
for parameter in model.parameters():
    parameter.requires_grad_(False)


class Stages:
    """Takes the place of the authors' log and keeps what it says about each stage."""

    def __init__(self):
        self.found = []

    def log(self, text):
        match = re.match(r"robust accuracy after (\S+): ([\d.]+)% \(total time ([\d.]+) s\)", text)
        if match:
            name, accuracy, seconds = match.groups()
            self.found.append({
                "name": name.lower(), "standing": round(float(accuracy) / 100 * len(images)), "seconds": float(seconds)})


attack = AutoAttack(model, norm=norm, eps=float(eps), seed=0, version=version, device="cpu", verbose=False)
attack.verbose, attack.logger = True, Stages()
started = time.time()
attack.run_standard_evaluation(images, labels, bs=int(batch))
seconds = time.time() - started
with torch.no_grad():
    clean = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(int(batch)), labels.split(int(batch))))
print(json.dumps({"seconds": seconds, "clean": clean, "stages": attack.logger.found}))
