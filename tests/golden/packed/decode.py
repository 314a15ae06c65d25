#!/usr/bin/env python3
"""A second decoder of packed files, written from docs/format.md alone: python3 decode.py FILE.spvd prints JSON.

It is slow, checks little and needs nothing but Python. A test compares it with the golden files."""
import json, struct, sys, zlib

E = [1 << 32]
for _ in range(3071):
    E.append(E[-1] * 4278222805 >> 32)
SQUASH = [(1 << 48) // ((1 << 32) + e) for e in E]
LN = []
for i in range(2048, 4096):
    m, l = i << 20, 11
    for _ in range(16):
        m, l = m * m >> 31, 2 * l
        if m >> 32:
            m, l = m >> 1, l + 1
    LN.append(l * 11629080 + (1 << 31) >> 32)


def limit(x, low, high):
    return max(low, min(high, x))


def squash(x):
    x = limit(x, -3071, 3071)
    return SQUASH[x] if x >= 0 else 65536 - SQUASH[-x]


def ln(x):
    shift = max(0, x.bit_length() - 32)
    x = max(1, x >> shift)
    t = x.bit_length() - 1
    i = x >> t - 11 if t >= 11 else x << 11 - t
    scale = lambda n: n * 11629080 + (1 << 15) >> 16
    return LN[i - 2048] + scale(t - 11) + scale(shift)


class Stream:
    def __init__(self, data):
        self.data, self.at, self.range, self.code = data, 4, (1 << 32) - 1, int.from_bytes((data + bytes(4))[:4], "big")
        self.byte, self.bytes = 1, bytearray()

    def bit(self, p):
        bound = (self.range >> 16) * p
        bit = self.code < bound
        if bit:
            self.range = bound
        else:
            self.code, self.range = self.code - bound, self.range - bound
        while self.range < 1 << 24:
            next_byte = self.data[self.at] if self.at < len(self.data) else 0
            self.range, self.code, self.at = self.range << 8, self.code << 8 | next_byte, self.at + 1
        self.byte = self.byte << 1 | bit
        if self.byte > 255:
            self.bytes.append(self.byte & 255)
            self.byte = 1
        return int(bit)

    def raw(self, n):
        v = 0
        for _ in range(n):
            v = v << 1 | self.bit(32768)
        return v

    def checksum(self):
        assert len(self.data) <= self.at <= len(self.data) + 4, "the stream ends elsewhere"
        return zlib.crc32(bytes(self.bytes) + bytes([self.byte]))


class Context:
    def __init__(self, strength, prior=None):
        self.seen = self.ones = self.expected = self.effect = self.due = 0
        if prior:
            weight, ratio = prior
            self.seen, self.expected, self.ones = 32 * weight, weight, weight // 16 * ratio
            self.compute(strength)

    def compute(self, s):
        zeros = lambda n: max(self.seen - n, 0) + s
        self.effect = ln(self.ones + s) - ln(self.expected + s) - ln(zeros(self.ones)) + ln(zeros(self.expected))


class Family:
    def __init__(self, stream, kinds, rate=0, priors=lambda k, context: None):
        self.stream, self.rate, self.priors, self.contexts = stream, rate, priors, {}
        self.weights, self.strengths = [w for w, _ in kinds], [s for _, s in kinds]

    def bit(self, base, *contexts):
        odds, steps = limit(base, -3071, 3071), []
        for k, c in enumerate(contexts):
            if (k, c) not in self.contexts:
                self.contexts[k, c] = Context(self.strengths[k], self.priors(k, c))
            context = self.contexts[k, c]
            steps.append((k, context, squash(odds), context.effect))
            odds = limit(odds + (context.effect * (self.weights[k] >> 4) >> 12), -3071, 3071)
        p = squash(odds)
        bit = self.stream.bit(p)
        error = 65536 - p if bit else -p
        for k, c, expected, effect in steps:
            self.weights[k] = limit(self.weights[k] + (error * effect * self.rate >> 16), 0, 131072)
            c.seen, c.ones, c.expected = c.seen + 65536, c.ones + 65536 * bit, c.expected + expected
            if bit or c.seen >= c.due:
                if c.seen >= 1 << 30:
                    c.seen, c.ones, c.expected = c.seen // 2, c.ones // 2, c.expected // 2
                c.compute(self.strengths[k])
                c.due = c.seen + (c.seen >> 5)
        return bit


class Numbers:
    def __init__(self, stream):
        self.stream, self.lengths, self.seconds = (stream, *(Family(stream, [(65536, 65536)]) for _ in range(2)))

    def number(self, kind):
        n = 0
        while self.lengths.bit(0, (kind, n)):
            n += 1
            assert n < 32
        if n == 0:
            return 0
        second = self.seconds.bit(0, (kind, n - 1))
        return ((2 | second) << n - 1 | self.stream.raw(n - 1)) - 1


def unzigzag(z):
    return z >> 1 ^ -(z & 1)


def window_output(node, h, w):
    (kh, kw), (sh, sw), (t, l, b, r), (dh, dw) = (node[k] for k in ("kernel_shape", "strides", "pads", "dilations"))
    return (h + t + b - dh * (kh - 1) - 1) // sh + 1, (w + l + r - dw * (kw - 1) - 1) // sw + 1


OPS = ["Conv", "Relu", "Linear", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Flatten", "Softmax", "Clip", "LeakyRelu", "Sigmoid",
       "HardSigmoid", "HardSwish", "Tanh", "Gelu", "Sub", "Mul", "Div"]  # those without tensors of their own that keep the shape
KEEP_UNITS = {1, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15}


def node(name, inputs, op, **more):
    return {"name": name, "inputs": inputs, "op": op, **more}


def preset(which):
    window = lambda k, s: {"kernel_shape": [k, k], "strides": [s, s], "pads": [0] * 4, "dilations": [1, 1]}
    parts = lambda name: {"weight": name + ".weight", "bias": name + ".bias"}
    chain = {
        1: [("flatten", "Flatten"), ("fc1", "Linear"), ("relu1", "Relu"), ("fc2", "Linear"), ("relu2", "Relu"), ("fc3", "Linear")],
        2: [("conv1", "Conv"), ("relu1", "Relu"), ("pool1", "MaxPool"), ("conv2", "Conv"), ("relu2", "Relu"), ("pool2", "MaxPool"),
            ("flatten", "Flatten"), ("fc1", "Linear"), ("relu3", "Relu"), ("fc2", "Linear")],
    }[which]
    nodes, before = [], "input"
    for name, op in chain:
        more = parts(name) if op in ("Linear", "Conv") else {}
        more |= window(5, 1) if op == "Conv" else window(2, 2) if op == "MaxPool" else {}
        nodes.append(node(name, [before], op, **more, **({"groups": 1} if op == "Conv" else {})))
        before = name
    rows = [300, 100, 10] if which == 1 else [20, 50, 500, 10]
    weights = [n["weight"] for n in nodes if "weight" in n]
    graph = {"name": ["lenet-300-100", "lenet-5"][which - 1], "inputs": [{"name": "input", "shape": [1, 28, 28]}], "nodes": nodes,
             "outputs": [before], "preprocessing": {"scale": struct.unpack("<f", struct.pack("<f", 1 / 255))[0], "mean": [0.0], "std": [1.0]}}
    return graph, dict(zip(weights, rows))


class Header:
    def __init__(self, stream, has_grids):
        self.stream, self.flags, numbers = stream, Family(stream, [(65536, 65536)]), Numbers(stream)
        self.number = numbers.number
        self.characters = Family(stream, [(65536, 32768)] * 2)
        self.graph, rows = self.read_graph()
        self.read_tensors(rows)
        self.grids, exponent = {}, -6
        for n in self.graph["nodes"] if has_grids else []:
            if "weight" in n and self.flag("int8"):
                exponent, scale = self.scale(exponent)
                self.grids[n["name"]] = {"scale": scale, "zero_point": 0 if self.flag("no zero point") else self.stream.raw(8)}

    def scale(self, exponent):
        exponent += unzigzag(self.number("exponent"))
        z = self.number("significand")
        length = z if z > 6 else 3 + (z + 1) // 2 if z % 2 else 3 - z // 2
        return exponent, 2.0 ** exponent * (1 + self.stream.raw(length) / 2.0 ** length)

    def flag(self, field):
        return self.flags.bit(512, field)

    def text(self, like):
        like = like.encode()
        text = bytearray(like[:len(like) - self.number("prefix")])
        while True:
            n, last, before = 1, *(text[-i] if len(text) >= i else 0 for i in (1, 2))
            while n < 256:
                base = {1: -768, 2: 256, 3: 256, 6: 256}.get(n, 0)
                n = n << 1 | self.characters.bit(base, (last, n), ((31 * last ^ before) % 1024, n))
            if n == 256:
                return text.decode()
            text.append(n & 255)

    def read_graph(self):
        which = self.number("preset")
        if which:
            graph, rows = preset(which)
            if not self.flag("preset name"):
                graph["name"] = self.text("")
            if not self.flag("preset preprocessing"):
                graph["preprocessing"] = self.preprocessing()
            return graph, rows
        graph = {"name": self.text(""), "preprocessing": self.preprocessing(), "inputs": [], "nodes": [], "outputs": []}
        values, names = [], {}
        for _ in range(self.number("inputs")):
            name = self.text("input")
            graph["inputs"].append({"name": name, "shape": [self.number("dimension") for _ in range(self.number("dimensions"))]})
            values.append(name)
        for _ in range(self.number("nodes")):
            op = self.number("operator")
            assert op < len(OPS), f"operator {op} is not decoded here"
            name = names[op] = self.text(names.get(op, ""))
            n = node(name, [values[-1 - self.number("distance")] for _ in range(2 if op in (6, 16, 17, 18) else 1)], OPS[op])
            if op in (0, 2):
                weight = name + ".weight"
                n["weight"] = weight if self.flag("default weight") else self.text(weight)
                if self.flag("has bias"):
                    bias = n["weight"].removesuffix(".weight") + ".bias"
                    n["bias"] = bias if self.flag("default bias") else self.text(bias)
            if op in (0, 3, 4):
                for key, field in (("kernel_shape", "kernel"), ("strides", "stride")):
                    square, first = self.flag("square"), self.number(field)
                    n[key] = [first, first if square else self.number(field)]
                n["pads"] = [0] * 4 if self.flag("no pads") else [self.number("pad")] * 4 if self.flag("one pad") else [self.number("pad") for _ in range(4)]
                n["dilations"] = [1, 1] if self.flag("no dilation") else [self.number("dilation") for _ in range(2)]
            if op == 0:
                n["groups"] = self.number("groups") + 1
            if op == 9:
                n |= {bound: self.float() for bound in ("min", "max") if not self.flag("no bound")}
            for key in {10: ["alpha"], 12: ["alpha", "beta"]}.get(op, []):
                n[key] = self.float()
            if op == 15:
                n["approximate"] = "tanh" if self.stream.raw(1) else "none"
            graph["nodes"].append(n)
            values.append(name)
        graph["outputs"] = [values[-1 - self.number("distance")] for _ in range(self.number("outputs"))]
        return graph, {}

    def float(self):
        return struct.unpack("<f", struct.pack("<I", self.stream.raw(32)))[0]

    def preprocessing(self):
        if not self.flag("preprocessing"):
            return None
        scale = self.float()
        lists = [[self.float() for _ in range(self.number("channels"))] for _ in range(2)]
        return {"scale": scale, "mean": lists[0], "std": lists[1]}

    def shapes(self, rows):
        values = {i["name"]: (i["shape"], i["shape"]) for i in self.graph["inputs"]}  # shape, and before flattening
        found = {}
        for n in self.graph["nodes"]:
            shape, before = values[n["inputs"][0]]
            out, op = list(shape), n["op"]
            if op == "Linear":
                out = [rows[n["weight"]]]
                units = before if len(before) == 3 else [shape[0], 1, 1]
                found.setdefault(n["weight"], (out + shape, units))
            elif op == "Conv":
                out = [rows[n["weight"]], *window_output(n, *shape[1:])]
                units = [shape[0] // n["groups"], *n["kernel_shape"]]
                found.setdefault(n["weight"], (out[:1] + units, units))
            elif op in ("MaxPool", "AveragePool"):
                out = [shape[0], *window_output(n, *shape[1:])]
            elif op == "GlobalAveragePool":
                out = [shape[0], 1, 1]
            elif op == "Flatten":
                total = 1
                for d in shape:
                    total *= d
                out = [total]
            if "bias" in n:
                found.setdefault(n["bias"], (out[:1], None))
            values[n["name"]] = (out, before if op == "Flatten" else out)
        return found

    def read_tensors(self, preset_rows):
        rows, original = {}, {}
        for n in self.graph["nodes"]:
            weight = n.get("weight")
            if weight is None or weight in rows:
                continue
            original[weight] = preset_rows[weight] if weight in preset_rows else self.number("original rows")
            rows[weight] = self.stream.raw((original[weight] - 1).bit_length()) if self.flag("reduced") else original[weight]
        shapes = self.shapes(rows)
        first = {name: shape for name, (shape, _) in shapes.items()}
        if self.flag("derived original"):
            first |= {name: shape for name, (shape, units) in self.shapes(original).items() if units}
        else:
            for name in sorted(shapes, key=str.encode):
                if self.flag("has original"):
                    first[name] = [d + self.number("dimension") for d in shapes[name][0]]
        self.tensors, exponents = {}, {"weight": -4, "bias": -4}
        for n in self.graph["nodes"]:
            for kind in ("weight", "bias"):
                name = n.get(kind)
                if name is None or name in self.tensors:
                    continue
                csr = self.flag("dense") if kind == "weight" else 0
                exponents[kind], step = self.scale(exponents[kind])
                owner = n["weight"] if kind == "bias" and self.tensors.get(n["weight"], {}).get("node") == n["name"] else None
                self.tensors[name] = {"shape": shapes[name][0], "original": first[name], "units": shapes[name][1], "step": step, "csr": csr,
                                      "node": n["name"], "owner": owner}


PATTERNS = {
    "map": [8, 65, 59, 88, 29, 53, 65, 88, 48, 97, 72, 97, 43, 88, 59, 97],
    "kernels": [14, 53, 48, 72, 24, 53, 39, 53, 29, 59, 59, 65, 53, 65, 53, 59],
    "units": [16] * 16,
    "kernel": [14, 20, 20, 22, 18, 20, 20, 22, 18, 22, 22, 22, 20, 22, 20, 22],
}
FAR = [16, 13, 16, 16, 18, 20, 22, 24, 24, 29]
U = 4096


class Models:
    def __init__(self, stream):
        self.stream, self.number = stream, Numbers(stream).number
        family = lambda kinds, *more: Family(stream, [(w * U, s * U) for w, s in kinds], *more)
        prior = lambda name: lambda k, c: (32 * U, FAR[c]) if k else (30 * U, PATTERNS[name][c])
        self.falls, self.empty = family([(12, 64)]), family([(16, 16)])
        self.positions = {name: family([(16, 32), (13, 32)], 10, prior(name)) for name in PATTERNS}
        self.signs = {name: family([(24, 9)], 30) for name in PATTERNS}
        self.sizes = family([(7, 16), (7, 48), (12, 58)], 10)
        self.zero, self.negative, self.bias_sizes = family([(16, 16)]), family([(16, 32)]), family([(16, 16), (16, 51)])

    def counts(self, rows, order):
        counts = []
        for row in range(rows):
            if order == "marked" and self.empty.bit(-512, 0 if not counts else 1 if counts[-1] else 2):
                counts.append(0)
                continue
            counted = [c for c in counts if c] if order == "marked" else counts
            if not counted:
                counts.append(self.number("first"))
            elif order == "sorted":
                before, fall = counts[-1], 0
                base = ln(16 * before) - ln(16 * (rows - row))
                while fall < before and self.falls.bit(base, min(fall, 7)):
                    fall += 1
                counts.append(before - fall)
            else:
                mean = sum(counted) // len(counted)
                low = (mean.bit_length() + 1) // 2
                high = self.number("deviation")
                counts.append(mean + unzigzag(high << low | self.stream.raw(low)))
        return counts

    def magnitude(self, base, contexts, family):
        size = 1
        while size < 24 and family.bit(base, *contexts(size - 1)):
            size += 1
        return size + self.number("escape") if size == 24 else size

    def matrix(self, counts, units, height, width, layer, dead):
        cells = height * width
        cols = units * cells
        kind = "units" if cells == 1 else "map" if units == 1 and cells > 64 else "kernel" if units == 1 else "kernels"
        seen, expected, rows = [0] * cols, 0, []
        for count in counts:
            factors = self.factors(seen, expected, units, height, width, dead) if count else []
            sums = [0] * (cols + 1)
            for c in reversed(range(len(factors))):
                sums[c] = sums[c + 1] + factors[c]
            row, left, grid, last = {}, count, {}, 0
            for column in range(cols):
                if left == 0:
                    break
                y, x = divmod(column % cells, width)
                if column % cells == 0:
                    grid, last = {}, 0
                four = [grid.get(p, 0) for p in ((y, x - 1), (y - 1, x), (y - 1, x - 1), (y - 1, x + 1))]
                pattern = sum((v != 0) << i for i, v in enumerate(four))
                if cols - column > left:
                    rest = max(sums[column] - left * factors[column], sums[column] >> 6)
                    far = 0
                    if kind == "map":
                        away = lambda p: (y - p[0] <= 5 and abs(x - p[1]) <= 5) and (y - p[0] > 2 or abs(x - p[1]) > 2)
                        far = 1 + min(8, sum(away(p) for p in grid))
                    if not self.positions[kind].bit(ln(factors[column]) + ln(left) - ln(rest), pattern, far):
                        continue
                sign = 10 + last if kind == "kernels" and pattern == 0 else 4 + sum((v > 0) - (v < 0) for v in four)
                negative = self.signs[kind].bit(0, sign)
                a = min(21, 2 * sum(map(abs, four)) // max(1, sum(v != 0 for v in four)))
                size = self.magnitude(102, lambda n: (min(n, 15), (min(layer, 63), n), (kind, a, min(n, 7))), self.sizes)
                row[column] = grid[y, x] = -size if negative else size
                last, left = 1 if negative else 2, left - 1
            for column in row:
                seen[column] += 1
            expected += 65536 * count // cols if cols else 0
            rows.append(row)
        return rows

    def factors(self, seen, e, units, height, width, dead):
        cells = height * width

        def ratio(n_seen, n, prior, s):
            s *= U
            total = min((65536 * n_seen + (s * prior >> 16)) * (2 ** 40 // (n * e + s)), 2 ** 64 - 1)
            return min(total >> 24, 1 << 24)

        factors = []
        if units == 1:
            totals = []
            for reach in (2, 1, 0):
                n, total = [0] * cells, [0] * cells
                for cell, count in enumerate(seen):
                    y, x = divmod(cell, width)
                    ys, xs = range(max(0, y - reach), min(height, y + reach + 1)), range(max(0, x - reach), min(width, x + reach + 1))
                    n[cell] = len(ys) * len(xs)
                    if count:
                        for place in (yy * width + xx for yy in ys for xx in xs):
                            total[place] += count
                totals.append((n, total))
            for cell in range(cells):
                f = 4 << 16
                for (n, total), s in zip(totals, (64, 85, 85)):
                    f = ratio(total[cell], n[cell], f, s)
                factors.append(f)
        else:
            g = [ratio(sum(seen[c::cells]), units, 65536, 338) for c in range(cells)]
            alive = units - sum(dead)
            prior = [65536] * units
            if len(dead) == units and alive:
                prior = [256 if d else min(units * 65536 // alive, 1 << 24) for d in dead]
            for unit in range(units):
                u = ratio(sum(seen[unit * cells:(unit + 1) * cells]), cells, prior[unit], 85)
                factors += [u] if cells == 1 else [ratio(seen[unit * cells + c], 1, u * g[c] >> 16, 48) for c in range(cells)]
        return [limit(f, 256, 1 << 24) >> 4 for f in factors]

    def biases(self, counts, order):
        biases = []
        for row in range(len(counts)):
            of_empty = order == "marked" and counts[row] == 0
            if order == "sorted" and row and counts[row] == counts[row - 1]:
                biases.append(biases[-1] - self.number("bias fall"))
            elif self.zero.bit(512 if of_empty else -384, int(of_empty)):
                biases.append(0)
            else:
                negative = self.negative.bit(0, 0)
                size = self.magnitude(256, lambda n: (min(n, 3), n), self.bias_sizes)
                biases.append(-size if negative else size)
        return biases


def dead_units(header, name, levels):
    """Which units that a weight reads have neither weights nor a bias."""
    made_by, makers = {}, []
    for n in header.graph["nodes"]:
        if n.get("weight") == name:
            makers.append(made_by.get(n["inputs"][0]))
            break
        passes = OPS.index(n["op"]) in KEEP_UNITS
        made_by[n["name"]] = n.get("weight", made_by.get(n["inputs"][0]) if passes else None)
    if makers == [None]:
        return []
    owned = [levels[b] for b, t in header.tensors.items() if t["owner"] == makers[0]]
    return [not row and not any(b[r] for b in owned) for r, row in enumerate(levels[makers[0]])]


def small(data, has_grids, marked=False):
    checksum, = struct.unpack("<H", data[:2])
    stream = Stream(data[2:])
    header = Header(stream, has_grids)
    models, levels = Models(stream), {}
    for layer, (name, tensor) in enumerate(header.tensors.items()):
        if tensor["units"] is None:
            if name not in levels:
                levels[name] = models.biases([0] * tensor["shape"][0], "any")
            continue
        order = "sorted" if header.flag("sorted") else "marked" if marked else "any"
        counts = models.counts(tensor["shape"][0], order)
        dead = dead_units(header, name, levels) if marked else []
        levels[name] = models.matrix(counts, *tensor["units"], layer, dead)
        for bias, t in header.tensors.items():
            if t["owner"] == name:
                levels[bias] = models.biases(counts, order)
    assert stream.checksum() & 0xFFFF == checksum
    return header, levels


def frequencies(weights):
    free, total = 2 ** 15 - len(weights), max(1, sum(weights))
    result = [1 + w * free // total for w in weights]
    result[weights.index(max(weights))] += 2 ** 15 - sum(result)
    return result


class Symbols:
    def __init__(self, data):
        self.x, = struct.unpack("<Q", data[:8])
        self.words = list(struct.unpack(f"<{len(data) // 4 - 2}I", data[8:]))[::-1]

    def symbol(self, frequencies):
        low, start = self.x & 32767, 0
        for symbol, f in enumerate(frequencies):
            if low < start + f:
                break
            start += f
        self.x = f * (self.x >> 15) + low - start
        if self.x < 1 << 31:
            self.x = self.x << 32 | self.words.pop()
        return symbol


def large(data, has_grids):
    length, checksum = struct.unpack("<II", data[:8])
    stream, rest = Stream(data[8:8 + length]), data[8 + length:]
    header = Header(stream, has_grids)
    models, levels, plans = Models(stream), {}, []
    for name, tensor in header.tensors.items():
        if tensor["units"] is None:
            levels[name] = models.biases([0] * tensor["shape"][0], "any")
            continue
        rows, cols = tensor["shape"][0], tensor["units"][0] * tensor["units"][1] * tensor["units"][2]
        block = limit(-(-2 ** 18 // max(1, cols)), 1, max(1, rows))
        nonzeros = [header.number("chunk non-zeros") for _ in range(0, rows, block)]
        weights, before = [], 0
        for _ in range(header.number("symbols")):
            before += unzigzag(header.number("symbol length"))
            weights.append((8 + stream.raw(3)) << before - 1 >> 3 if before else 0)
        values = frequencies(weights or [1])
        plans += [(name, min(block, rows - i * block), cols, k, values) for i, k in enumerate(nonzeros)]
        levels[name] = []
    assert stream.checksum() == checksum
    lengths = struct.unpack(f"<{len(plans)}I", rest[:4 * len(plans)])
    at = 4 * len(plans)
    for (name, rows, cols, k, values), length in zip(plans, lengths):
        chunk, at, found = rest[at:at + length], at + length, [{} for _ in range(rows)]
        levels[name] += found
        if k == 0:
            assert not chunk
            continue
        z, left, weights = ((rows * cols - k) << 32) // (rows * cols), 1 << 32, []
        while len(weights) < 255 and (left > 1 << 22 or not weights):
            weights.append(left - (left * z >> 32))
            left -= weights[-1]
        gaps, symbols, place, crc = frequencies(weights + [left]), Symbols(chunk[4:]), 0, 0
        for _ in range(k):
            while True:
                gap = symbols.symbol(gaps)
                place += gap
                if gap < len(weights):
                    break
            n = symbols.symbol(values)
            if n == 255:
                n = symbols.symbol([128] * 256) + 256 * symbols.symbol([128] * 256)
            level = unzigzag(n + 1)
            found[place // cols][place % cols] = level
            crc = zlib.crc32(struct.pack("<Ih", place & 0xFFFFFFFF, level), crc)
            place += 1
        assert symbols.x == 1 << 31 and not symbols.words and crc == struct.unpack("<I", chunk[:4])[0]
    assert at == len(rest)
    return header, levels


def main():
    data = open(sys.argv[1], "rb").read()
    assert data[:4] == b"SPVD" and data[4] >> 4 == 1
    read = {1: small, 2: large, 3: lambda data, has_grids: small(data, has_grids, True)}[data[4] & 11]
    header, levels = read(data[5:], bool(data[4] & 4))
    tensors = {}
    for name, t in header.tensors.items():
        values = levels[name] if t["units"] is None else [[c, row[c]] for row in levels[name] for c in sorted(row)]
        tensors[name] = {"shape": t["shape"], "original": t["original"], "step": t["step"], "csr": bool(t["csr"]), "levels": values,
                         "counts": None if t["units"] is None else [len(row) for row in levels[name]]}
    json.dump({"graph": header.graph, "tensors": tensors, "grids": header.grids}, sys.stdout)


main()
