"""The same work in PyTorch: reads a job on the command line, then runs it once for every line on standard input.

python3 pytorch.py JOB, with JOB a JSON object:
  work      "adaad", "pgd-at", "pgd", "logits", "conv" or "gemm"
  threads   how many to use
  student, teacher   {"name": architecture, "file": safetensors}
  inputs    safetensors with images x, float32 [N,H,W,C], and labels y, int32 [N]
  batch, steps, channels_last, conv, repeat, seconds
  device    "cuda", or "cpu", the default
  precision "tf32" lets products of float32 use TF32; "bf16" runs under autocast to bfloat16
  compile   put networks through torch.compile, where PyTorch has it

Every run prints {"seconds": of one repetition, "value": a number that both sides must agree on, "peak": bytes}.
"""

import json
import re
import resource
import struct
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    types = {"F32": torch.float32, "I32": torch.int32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = torch.frombuffer(bytearray(data[begin:end]), dtype=types[entry["dtype"]])
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def conv(cin, cout, size, stride=1, groups=1):
    return nn.Conv2d(cin, cout, size, stride, size // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = conv(cout, cout, 3), nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, width, blocks):
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 3), nn.BatchNorm2d(width)
        self.stages = len(blocks)
        cin = width
        for stage, count in enumerate(blocks):
            layers = []
            for i in range(count):
                cout = width << stage
                layers.append(BasicBlock(cin, cout, 2 if stage > 0 and i == 0 else 1))
                cin = cout
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(cin, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.linear(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self, cin, hidden, cout, stride):
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = conv(cin, hidden, 1), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = conv(hidden, hidden, 3, stride, hidden), nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = conv(hidden, cout, 1), nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride == 1 and cin != cout:
            self.shortcut = nn.Sequential(conv(cin, cout, 1), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.stride == 1 else y


class MobileNetV2(nn.Module):
    stages = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 32, 3), nn.BatchNorm2d(32)
        layers, cin = [], 32
        for expansion, cout, count, stride in self.stages:
            for i in range(count):
                layers.append(InvertedResidual(cin, expansion * cin, cout, stride if i == 0 else 1))
                cin = cout
        self.layers = nn.Sequential(*layers)
        self.conv2, self.bn2 = conv(cin, 1280, 1), nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, 10)

    def forward(self, x):
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), conv(cin, cout, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(cout), conv(cout, cout, 3)
        self.convShortcut = conv(cin, cout, 1, stride) if cin != cout else None

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return y + (self.convShortcut(a) if self.convShortcut else x)


class WideStage(nn.Module):
    def __init__(self, cin, cout, count, stride):
        super().__init__()
        self.layer = nn.Sequential(*[WideBlock(cin if i == 0 else cout, cout, stride if i == 0 else 1) for i in range(count)])

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, depth, k):
        super().__init__()
        count = (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        self.block1 = WideStage(16, 16 * k, count, 1)
        self.sub_block1 = WideStage(16, 16 * k, count, 1)  # in the state dict, never called
        self.block2 = WideStage(16 * k, 32 * k, count, 2)
        self.block3 = WideStage(32 * k, 64 * k, count, 2)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, 10)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


def network(spec):
    name = spec["name"]
    if name == "resnet18":
        net = ResNet(64, [2, 2, 2, 2])
    elif name == "mobilenet-v2":
        net = MobileNetV2()
    elif match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        net = WideResNet(int(match[1]), int(match[2]))
    elif match := re.fullmatch(r"resnet(\d+)", name):
        net = ResNet(16, [(int(match[1]) - 2) // 6] * 3)
    else:
        raise SystemExit(f"no network {name} here")
    net.load_state_dict(read(spec["file"]))
    net.eval()
    return net


def kl(target, prediction, reduction):
    return F.kl_div(F.log_softmax(prediction, 1), F.softmax(target, 1), reduction=reduction)


class Place:
    """Where and how a job computes."""

    def __init__(self, job):
        self.device = job.get("device", "cpu")
        self.memory = torch.channels_last if job.get("channels_last") else torch.contiguous_format
        self.precision = job.get("precision", "fp32")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        self.compiles = job.get("compile", False) and hasattr(torch, "compile")
        self.words = ["compiled" if self.compiles else "eager", self.precision]
        if job.get("compile") and not self.compiles:
            self.words.append(f"(PyTorch {torch.__version__} has no torch.compile)")

    def network(self, spec):
        net = network(spec).to(self.device, memory_format=self.memory)
        return torch.compile(net) if self.compiles else net

    def images(self, x):
        return x.to(self.device).permute(0, 3, 1, 2).contiguous(memory_format=self.memory)

    def logits(self, net, x):
        """Logits in float32, whatever the network computes in."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            z = net(x)
        return z.float()


def climb(x, start, steps, objective):
    """The search: steps of 2/255 up the objective in the ball of 8/255 around x."""
    adv = start.clone()
    for _ in range(steps):
        adv.requires_grad_(True)
        grad, = torch.autograd.grad(objective(adv), adv)
        adv = adv.detach() + 2 / 255 * grad.sign()
        adv = torch.min(torch.max(adv, x - 8 / 255), x + 8 / 255).clamp(0, 1)
    return adv


class Step:
    """One training step, of AdaAD as the authors' code takes it (CVPR 2023) or of PGD-AT: search, then update."""

    def __init__(self, job, place):
        self.place, self.steps = place, job["steps"]
        self.student = place.network(job["student"])
        self.teacher = None
        if job["work"] == "adaad":
            self.teacher = place.network(job["teacher"])
            for p in self.teacher.parameters():
                p.requires_grad_(False)
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def __call__(self, x, start, y):
        logits, student, teacher = self.place.logits, self.student, self.teacher
        student.eval()
        student.requires_grad_(False)  # else a compiled network computes gradients of weights that nobody asked for
        if teacher is not None:
            adv = climb(x, start, self.steps, lambda adv: kl(logits(teacher, adv), logits(student, adv), "sum"))
        else:
            adv = climb(x, start, self.steps, lambda adv: F.cross_entropy(logits(student, adv), y, reduction="sum"))
        student.train()
        student.requires_grad_(True)
        self.optimizer.zero_grad()
        if teacher is not None:
            logits(student, x)
            with torch.no_grad():
                target = logits(teacher, adv)
            loss = kl(target, logits(student, adv), "batchmean")
        else:
            loss = F.cross_entropy(logits(student, adv), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def pgd(net, steps):
    """Clean accuracy and what is left of it after PGD."""
    for p in net.parameters():
        p.requires_grad_(False)

    def evaluate(x, y):
        with torch.no_grad():
            clean = (net(x).argmax(1) == y).sum()
        adv = climb(x, x, steps, lambda adv: F.cross_entropy(net(adv), y, reduction="sum"))
        with torch.no_grad():
            logits = net(adv)
        return (clean + (logits.argmax(1) == y).sum()).item() + F.cross_entropy(logits, y).item()

    return evaluate


def prepare(job, place):
    memory = place.memory
    if job["work"] == "gemm":
        m, n, k = job["gemm"]
        kind = torch.bfloat16 if place.precision == "bf16" else torch.float32
        a, b = (torch.rand(size, device=place.device).to(kind) for size in ((m, k), (k, n)))
        return lambda: (a @ b)[0, 0] * 0
    if job["work"] == "conv":
        s = job["conv"]
        x = torch.rand(s["n"], s["cin"], s["size"], s["size"]).to(memory_format=memory)
        layer = conv(s["cin"], s["cout"], s["kernel"], s["stride"], s["groups"]).to(memory_format=memory)
        w = layer.weight.detach()
        y = F.conv2d(x, w, None, s["stride"], s["kernel"] // 2, 1, s["groups"])
        dy = torch.rand_like(y)

        def backward(which):
            mask = [which == "input", which == "kernel", False]
            pad = [s["kernel"] // 2] * 2
            return torch.ops.aten.convolution_backward(dy, x, w, None, [s["stride"]] * 2, pad, [1, 1], False, [0, 0], s["groups"], mask)

        def run():
            if s["direction"] == "forward":
                F.conv2d(x, w, None, s["stride"], s["kernel"] // 2, 1, s["groups"])
            else:
                backward(s["direction"])
            return 0.0

        return run

    data = read(job["inputs"])
    x, start, y = place.images(data["x"]), place.images(data["start"]), data["y"].long().to(place.device)
    if job["work"] in ("adaad", "pgd-at"):
        step = Step(job, place)
        return lambda: step(x, start, y)
    net = place.network(job["student"])
    if job["work"] == "pgd":
        evaluate = pgd(net, job["steps"])
        return lambda: evaluate(x, y)

    def logits():
        with torch.no_grad():
            return net(x).abs().sum().item()

    return logits


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    place = Place(job)
    work = prepare(job, place)
    print("ready PyTorch", torch.__version__, *place.words, flush=True)
    for _ in sys.stdin:
        if job["seconds"]:
            work()
        begin, runs = time.perf_counter(), 0
        while runs < max(job["repeat"], 1) or time.perf_counter() - begin < job["seconds"]:
            value = work()
            runs += 1
        value = float(value)  # waits for the device
        seconds = (time.perf_counter() - begin) / runs
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "value": value, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
