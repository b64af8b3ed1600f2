"""Files between PyTorch and rp.h, both ways. Wants `pip install torch numpy safetensors`.

    python tests/torch_files.py make tests/files     # what PyTorch saves, for test_files.c
    python tests/torch_files.py check tests/files    # what rp.h saved (build/tests/test_files write), by PyTorch
"""
import json
import struct
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

SAMPLES = 4


class States(nn.Module):
    """All states of a recurrent layer, whose parameters are named as if it were the layer itself."""

    def __init__(self, features, units, activation):
        super().__init__()
        rnn = nn.RNN(features, units, nonlinearity=activation, batch_first=True)
        self._rnn = [rnn]
        for name, parameter in list(rnn.named_parameters()):
            self.register_parameter(name, parameter)

    def forward(self, x):
        return self._rnn[0](x)[0]


class Rnn(nn.Module):
    def __init__(self, layers=1):
        super().__init__()
        self.rnn = nn.RNN(3, 4, num_layers=layers, batch_first=True)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(self.rnn(x)[0][:, -1])


def mlp():
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def tensors_of(net, shape, dtype=torch.float32):
    """Its state_dict in this format, with inputs, the outputs of those numbers, and what no net has."""
    state = {name: tensor.detach().to(dtype) for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(state[name])
    x = torch.rand(SAMPLES, *shape) * 2 - 1
    y = net.double()(x.double()).float()
    extra = {"inputs": x.flatten(1), "outputs": y.detach().flatten(1), "step": torch.tensor(7), "mask": torch.ones(3).bool()}
    return {**{name: tensor.contiguous() for name, tensor in state.items()}, **extra}


def write_shuffled(tensors, path):
    """By hand, since the package sorts them: entries in one order, bytes in another."""
    names = list(tensors)
    places, data = {}, b""
    for name in names[::-1]:
        raw = tensors[name].numpy().tobytes()
        places[name] = [len(data), len(data) + len(raw)]
        data += raw
    kinds = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
    entries = {name: {"data_offsets": places[name], "shape": list(tensors[name].shape), "dtype": kinds[tensors[name].dtype]}
               for name in names[2:] + names[:2]}
    header = json.dumps({**entries, "__metadata__": {"origin": "h\u00e4nd"}}, indent=1).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def make(folder):
    torch.manual_seed(1)
    for name in ["float32", "float16", "bfloat16", "float64"]:
        save_file(tensors_of(mlp(), (5,), getattr(torch, name)), folder / f"torch_{name}.safetensors")
    infinite = tensors_of(mlp(), (5,), torch.float16)
    infinite["2.bias"][1] = float("inf")
    save_file(infinite, folder / "torch_infinite.safetensors")
    renamed = {name.replace("0.", "first.").replace("2.", "last."): tensor
               for name, tensor in tensors_of(mlp(), (5,)).items()}
    write_shuffled(renamed, folder / "torch_shuffled.safetensors")
    conv2d = nn.Sequential(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), groups=2), nn.ReLU(), nn.Flatten(),
                           nn.Linear(216, 3, bias=False))
    save_file(tensors_of(conv2d, (4, 7, 6)), folder / "torch_conv2d.safetensors")
    save_file(tensors_of(Rnn(), (5, 3)), folder / "torch_rnn.safetensors")
    save_file(tensors_of(Rnn(2), (5, 3)), folder / "torch_layers.safetensors")
    states = nn.Sequential(States(3, 4, "relu"), States(4, 3, "tanh"), nn.Flatten(), nn.Linear(15, 2))
    save_file(tensors_of(states, (5, 3)), folder / "torch_states.safetensors")


def sizes(word):
    numbers = [int(number) for number in word.split("x")]
    return numbers if len(numbers) > 1 else numbers * 2


def activate(z, name, slope):
    if name in ("leaky_relu", "elu"):
        return getattr(functional, name)(z, slope)
    return z if name == "identity" else getattr(functional, name, getattr(torch, name, None))(z)


def layer(index, words, tensors, y, earlier):
    """What a layer of the text makes of y."""
    name = words[0]
    after = {word: value for word, value in zip(words, words[1:] + [""])}
    weight, bias = tensors.get(f"{index}.weight"), tensors.get(f"{index}.bias")
    slope = float(after.get("slope", 0))
    if name == "dense":
        return functional.linear(y.flatten(1), weight, bias)
    if name == "conv2d":
        return functional.conv2d(y, weight, bias, sizes(after["stride"]), sizes(after["padding"]), 1,
                                 int(after.get("groups", 1)))
    if name in ("max_pool2d", "avg_pool2d"):
        return getattr(functional, name)(y, sizes(words[1]), sizes(after["stride"]))
    if name == "global_avg_pool2d":
        return y.mean((2, 3), keepdim=True)
    if name == "add":
        return y + earlier[words[1]]
    if name == "recurrent":
        h, states = torch.zeros(len(y), int(words[1]), dtype=y.dtype), []
        for t in range(y.shape[1]):
            z = y[:, t] @ tensors[f"{index}.weight_ih"].T + h @ tensors[f"{index}.weight_hh"].T
            h = activate(z if bias is None else z + bias, words[2], slope)
            states.append(h)
        return torch.stack(states, 1) if "all_states" in words else h
    if name == "recursive":
        y = y.flatten(1)
        for _ in range(int(words[1])):
            y = activate(functional.linear(y, weight, bias), words[2], slope)
        return y
    return activate(y, name, slope)


def outputs_of(text, tensors):
    items = [item.split() for item in text.split(";")]
    shape = [int(size) for size in items[0][2].split("x")]
    state, numbers = 1, []
    for _ in range(SAMPLES * torch.Size(shape).numel()):
        state = (state * 1664525 + 1013904223) % 2**32
        numbers.append((state >> 8) / 2**23 - 1)
    y = torch.tensor(numbers, dtype=torch.float64).reshape(SAMPLES, *shape)
    earlier = {"input": y}
    for index, words in enumerate(items[1:-1]):
        y = layer(index, words, tensors, y, earlier)
        earlier[str(index)] = y
    return y.flatten(1)


def check(folder):
    for path in sorted(folder.glob("ours_*.safetensors")):
        if path.stem.endswith("_outputs"):
            continue
        with safe_open(path, "pt") as file:
            text = file.metadata()["rp.net"]
        tensors = {name: tensor.double() for name, tensor in load_file(path).items()}
        expected = load_file(folder / f"{path.stem}_outputs.safetensors")["0.weight"].double()
        difference = (outputs_of(text, tensors) - expected).abs().max().item()
        print(f"{path.name}: outputs differ by {difference:.1e}")
        assert difference < 1e-6


{"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
