"""Makes tests/torch_layers.h: what PyTorch gives for one small net of each kind of layer, in float64.

    python tests/torch_layers.py > tests/torch_layers.h

Parameters and data are not listed: the generator of torch_numbers.py, here and in test_layers.c, makes them.
"""
import torch
from torch import nn

BATCH, DIGITS = 4, 13


class Generator:
    """Numbers in [-1, 1) that are exact in 32-bit floating point."""

    def __init__(self):
        self.state = 1

    def reals(self, *shape):
        numbers = []
        for _ in range(torch.Size(shape).numel()):
            self.state = (self.state * 1664525 + 1013904223) % 2**32
            numbers.append((self.state >> 8) / 2**23 - 1)
        return torch.tensor(numbers).reshape(shape)


class States(nn.Module):
    """The last state of a recurrent layer, or all of them."""

    def __init__(self, features, units, activation, all_states):
        super().__init__()
        self.rnn = nn.RNN(features, units, nonlinearity=activation, batch_first=True)
        self.rnn.bias_hh_l0.data.zero_()  # PyTorch has two biases, whose sum counts
        self.rnn.bias_hh_l0.requires_grad = False
        self.all_states = all_states

    def forward(self, x):
        states = self.rnn(x)[0]
        return states if self.all_states else states[:, -1]


class Residual(nn.Sequential):
    """Adds its input to what its layers make of it."""

    def forward(self, x):
        return x + super().forward(x)


def nets():  # in the order of make_net in test_layers.c: name, input shape, net
    yield "conv2d", (4, 7, 6), nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(216, 3))
    yield "max_pool2d", (2, 7, 6), nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.MaxPool2d(3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, 3))
    yield "avg_pool2d", (2, 8, 7), nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.ReLU(), nn.AvgPool2d(3, 2), nn.Flatten(), nn.Linear(18, 3))
    yield "recurrent, last state", (5, 3), nn.Sequential(States(3, 4, "tanh", False), nn.Linear(4, 2))
    yield "recurrent, all states", (5, 3), nn.Sequential(
        States(3, 4, "tanh", True), States(4, 3, "relu", True), nn.Flatten(), nn.Linear(15, 2))
    yield "residual", (3, 5, 4), nn.Sequential(
        Residual(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), Residual(nn.Conv2d(3, 3, 3, padding=1), nn.Softplus())),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


def results(shape, net):
    """Outputs, loss, gradient."""
    generator = Generator()
    parameters = [p for p in net.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = generator.reals(*parameter.shape) / 2
    outputs = net(generator.reals(BATCH, *shape))
    loss = ((outputs - generator.reals(*outputs.shape)) ** 2).sum() / 2 / BATCH
    loss.backward()
    return torch.cat([outputs.flatten(), loss.reshape(1), *(p.grad.flatten() for p in parameters)]).tolist()


def wrapped(numbers, width=116):
    lines = [""]
    for number in numbers:
        text = f"{number:.{DIGITS}g},"
        if len(lines[-1]) + len(text) + 1 > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + text
    return "\n".join("    " + line for line in lines)


HEADER = """/* Made by tests/torch_layers.py with PyTorch {version}, in float64. */
#ifndef TORCH_LAYERS_H
#define TORCH_LAYERS_H

enum {{ TORCH_NETS = {nets}, TORCH_BATCH = {batch} }};

/* For each net: outputs [TORCH_BATCH][outputs], the loss, the gradient. */
static const double torch_results[] = {{
{rows}
}};
#endif"""


def main():
    torch.set_default_dtype(torch.float64)
    rows = [f"    /* {name} */\n{wrapped(results(shape, net))}" for name, shape, net in nets()]
    version = torch.__version__.split("+")[0]
    print(HEADER.format(version=version, nets=len(rows), batch=BATCH, rows="\n".join(rows)))


main()
