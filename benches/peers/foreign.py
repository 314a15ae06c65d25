#!/usr/bin/env python3
"""Models and data from elsewhere, to try `compress` on what it was never tuned on.

    pip install torch safetensors pillow
    python benches/peers/foreign.py glyphs OUT     # a data set like MNIST: letters A-J in the fonts found, as IDX files
    python benches/peers/foreign.py lenet-5 IDX MODEL.safetensors   # LeNet-5 trained and saved by PyTorch, its own tensor names

    compress MODEL.safetensors --network lenet-5 --data IDX
"""
import gzip
import pathlib
import random
import struct
import sys

import numpy


def read_idx(path):
    raw = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    rank = raw[3]
    return numpy.frombuffer(raw, numpy.uint8, offset=4 + 4 * rank).reshape(struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank]))


def write_idx(path, array):
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def glyphs(out):
    from PIL import Image, ImageDraw, ImageFont

    fonts = sorted(p for p in pathlib.Path("/usr/share/fonts").rglob("*.ttf") if "Math" not in p.name and "Symbol" not in p.name)
    assert fonts, "no TrueType fonts found"
    rng = random.Random(0)
    noise = numpy.random.default_rng(0)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    # Fonts of the test set are not those of the training set.
    rng.shuffle(fonts)
    parts = {"train": (30_000, fonts[len(fonts) // 5 :]), "t10k": (5_000, fonts[: len(fonts) // 5])}
    for part, (count, fonts) in parts.items():
        images, labels = numpy.zeros((count, 28, 28), numpy.uint8), numpy.zeros(count, numpy.uint8)
        for i in range(count):
            label = rng.randrange(10)
            font = ImageFont.truetype(str(rng.choice(fonts)), rng.randrange(34, 46))
            image = Image.new("L", (64, 64))
            ImageDraw.Draw(image).text((32, 32), "ABCDEFGHIJ"[label], fill=255, font=font, anchor="mm")
            image = image.rotate(rng.uniform(-20, 20), Image.BILINEAR, translate=(rng.randrange(-6, 7), rng.randrange(-6, 7)))
            pixels = numpy.asarray(image.resize((28, 28), Image.BILINEAR), numpy.float32)
            images[i] = numpy.clip(pixels + noise.normal(0, 16, (28, 28)), 0, 255)
            labels[i] = label
        write_idx(out / f"{part}-images-idx3-ubyte", images)
        write_idx(out / f"{part}-labels-idx1-ubyte", labels)


def lenet_5(data, model):
    import torch
    from safetensors.torch import save_file
    from torch import nn

    def load(part):
        def find(name):
            return next(p for p in (pathlib.Path(data) / f"{part}-{name}", pathlib.Path(data) / f"{part}-{name}.gz") if p.exists())

        images, labels = read_idx(find("images-idx3-ubyte")), read_idx(find("labels-idx1-ubyte"))
        return torch.tensor(images).float().div(255).unsqueeze(1), torch.tensor(labels).long()

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )
    (x, y), (tx, ty) = load("train"), load("t10k")
    epochs, batch = 6, 128
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, epochs * (len(x) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x) - batch + 1, batch):
            pick = order[i : i + batch]
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[pick]), y[pick]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        error = 100 * (net(tx).argmax(1) != ty).float().mean().item()
    save_file(net.state_dict(), model)
    print(f"{model}: test error {error:.2f} %, tensors {', '.join(net.state_dict())}")


if sys.argv[1:2] == ["glyphs"] and len(sys.argv) == 3:
    glyphs(sys.argv[2])
elif sys.argv[1:2] == ["lenet-5"] and len(sys.argv) == 4:
    lenet_5(*sys.argv[2:])
else:
    sys.exit(__doc__)
