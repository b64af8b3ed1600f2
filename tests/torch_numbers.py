"""Makes tests/torch_numbers.h: what PyTorch's optimizers, activations and losses give on small nets, in float64.

    python tests/torch_numbers.py > tests/torch_numbers.h

The first parameters and the data are not listed: a generator of three lines, here and in test_torch.c, makes them.
"""
import inspect
import torch
from torch import nn
from torch.nn import functional as F

STEPS, BATCHES, BATCH = 20, 4, 6
DIGITS = 13

ACTIVATIONS = {
    "RP_IDENTITY": lambda slope: nn.Identity(),
    "RP_RELU": lambda slope: nn.ReLU(),
    "RP_LEAKY_RELU": lambda slope: nn.LeakyReLU(slope) if slope else nn.LeakyReLU(),
    "RP_TANH": lambda slope: nn.Tanh(),
    "RP_SIGMOID": lambda slope: nn.Sigmoid(),
    "RP_SOFTPLUS": lambda slope: nn.Softplus(),
    "RP_ELU": lambda slope: nn.ELU(slope) if slope else nn.ELU(),
    "RP_GELU": lambda slope: nn.GELU(),
    "RP_SILU": lambda slope: nn.SiLU(),
}

LOSSES = {  # sums over outputs; the mean over the batch is taken by the caller
    "RP_SQUARED_ERROR": lambda y, t, delta: ((y - t) ** 2).sum() / 2,
    "RP_SOFTMAX_CROSS_ENTROPY": lambda y, t, delta: F.cross_entropy(y, t, reduction="sum"),
    "RP_BINARY_CROSS_ENTROPY": lambda y, t, delta: F.binary_cross_entropy_with_logits(y, t, reduction="sum"),
    "RP_HUBER": lambda y, t, delta: F.huber_loss(y, t, reduction="sum", delta=delta or 1.0),
    "RP_POISSON": lambda y, t, delta: F.poisson_nll_loss(y, t, log_input=True, full=False, reduction="sum"),
}


def case(widths, activation, loss, method, rate, output=0, slope=0, delta=0, labels=0, **fields):
    names = ("momentum", "nesterov", "weight_decay", "decoupled", "decay")
    return dict(widths=widths, activation=activation, loss=loss, output=output, slope=slope, delta=delta, labels=labels,
                method=method, rate=rate, **{name: fields.get(name, 0) for name in names})


def cases():
    methods = [
        dict(method="RP_SGD", rate=0.05),
        dict(method="RP_SGD", rate=0.05, decay=0.9),
        dict(method="RP_SGD", rate=0.05, momentum=0.9),
        dict(method="RP_SGD", rate=0.05, momentum=0.9, nesterov=1),
        dict(method="RP_SGD", rate=0.05, momentum=0.5, weight_decay=0.1),
        dict(method="RP_ADAM", rate=0.02),
        dict(method="RP_ADAM", rate=0.02, weight_decay=0.1),
        dict(method="RP_ADAM", rate=0.02, weight_decay=0.1, decoupled=1),
        dict(method="RP_ADAGRAD", rate=0.05, weight_decay=0.1),
        dict(method="RP_ADADELTA", rate=1.0),
    ]
    for method in methods:
        yield case((5, 7, 3, 4), "RP_TANH", "RP_SQUARED_ERROR", output=1, **method)
    for method in methods:
        yield case((5, 7, 3, 4), "RP_SOFTPLUS", "RP_SOFTMAX_CROSS_ENTROPY", labels=1, **method)
    small = dict(widths=(3, 4, 2), method="RP_SGD", rate=0.1)
    for activation in ACTIVATIONS:
        yield case(activation=activation, loss="RP_SQUARED_ERROR", output=1, **small)
    yield case(activation="RP_LEAKY_RELU", slope=0.25, loss="RP_SQUARED_ERROR", output=1, **small)
    yield case(activation="RP_ELU", slope=0.25, loss="RP_SQUARED_ERROR", output=1, **small)
    for loss in LOSSES:
        yield case(activation="RP_SIGMOID", loss=loss, **small)
    yield case(activation="RP_SIGMOID", loss="RP_HUBER", delta=0.25, **small)
    yield case((3, 4, 1), "RP_SIGMOID", "RP_BINARY_CROSS_ENTROPY", "RP_SGD", 0.1, labels=1)


class Generator:
    """Numbers in [-1, 1) that are exact in 32-bit floating point."""

    def __init__(self):
        self.state = 1

    def bits(self):
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return self.state >> 8

    def reals(self, *shape):
        count = torch.Size(shape).numel()
        return torch.tensor([self.bits() / 2**23 - 1 for _ in range(count)]).reshape(shape)

    def labels(self, classes, count):
        return torch.tensor([(self.bits() >> 8) % classes for _ in range(count)])


def make_net(c, generator):
    layers = []
    for i, (fan_in, units) in enumerate(zip(c["widths"], c["widths"][1:])):
        layers.append(nn.Linear(fan_in, units))
        if i < len(c["widths"]) - 2 or c["output"]:
            layers.append(ACTIVATIONS[c["activation"]](c["slope"]))
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(generator.reals(*parameter.shape) / 2)
    return net


def make_targets(c, generator):
    count, outputs = BATCHES * BATCH, c["widths"][-1]
    if not c["labels"]:
        targets = generator.reals(count, outputs)
        return targets if c["loss"] in ("RP_SQUARED_ERROR", "RP_HUBER") else (targets + 1) / 2
    labels = generator.labels(max(outputs, 2), count)
    return labels if outputs > 1 else labels.to(torch.float64).unsqueeze(1)


def make_optimizer(c, parameters):
    regularised = dict(lr=c["rate"], weight_decay=c["weight_decay"])
    if c["method"] == "RP_SGD":
        return torch.optim.SGD(parameters, momentum=c["momentum"], nesterov=bool(c["nesterov"]), **regularised)
    if c["method"] == "RP_ADAM":
        return (torch.optim.AdamW if c["decoupled"] else torch.optim.Adam)(parameters, **regularised)
    other = {"RP_ADAGRAD": torch.optim.Adagrad, "RP_ADADELTA": torch.optim.Adadelta}
    return other[c["method"]](parameters, **regularised)


def train(c):
    """The parameters after the last step, and the loss before the first and before the last."""
    generator = Generator()
    net = make_net(c, generator)
    inputs = generator.reals(BATCHES * BATCH, c["widths"][0])
    targets = make_targets(c, generator)
    optimizer = make_optimizer(c, net.parameters())
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, c["decay"] or 1.0)
    losses = []
    for step in range(STEPS):
        batch = slice(step % BATCHES * BATCH, (step % BATCHES + 1) * BATCH)
        loss = LOSSES[c["loss"]](net(inputs[batch]), targets[batch], c["delta"]) / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return torch.cat([p.detach().flatten() for p in net.parameters()]).tolist(), losses[0], losses[-1]


def default(method, name):
    return inspect.signature(method).parameters[name].default


def row(c, first, last):
    widths = ", ".join(map(str, list(c["widths"]) + [0] * (4 - len(c["widths"]))))
    net = [c[name] for name in ("activation", "output", "slope", "loss", "delta", "labels")]
    step = [c[name] for name in ("method", "rate", "momentum", "nesterov", "weight_decay", "decoupled", "decay")]
    losses = [f"{loss:.{DIGITS}g}" for loss in (first, last)]
    return f"    {{{{{widths}}}, {', '.join(map(str, net))},\n     {', '.join(map(str, step + losses))}}},"


def wrapped(numbers, width=116):
    lines = [""]
    for number in numbers:
        text = f"{number:.{DIGITS}g},"
        if len(lines[-1]) + len(text) + 1 > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + text
    return "\n".join("    " + line for line in lines)


HEADER = """/* Made by tests/torch_numbers.py with PyTorch {version}, in float64. */
#ifndef TORCH_NUMBERS_H
#define TORCH_NUMBERS_H

/* Step t trains on batch t % TORCH_BATCHES. */
enum {{ TORCH_STEPS = {steps}, TORCH_BATCHES = {batches}, TORCH_BATCH = {batch} }};

/* The defaults of PyTorch's optimizers. */
static const struct {{
    double momentum, weight_decay, beta1, beta2, adam_epsilon, adagrad_epsilon, rho, adadelta_epsilon;
}} torch_defaults = {{{defaults}}};

/* A net: dense layers with these widths (from the inputs; 0 ends them), the activation after each but the last, and
   there too if `output`. Slope, delta, decay: 0 where the default is meant. */
static const struct torch_case {{
    int widths[4];
    rp_activation_kind activation;
    int output;
    double slope;
    rp_loss_kind loss;
    double delta;
    int labels;
    rp_method method;
    double rate, momentum;
    int nesterov;
    double weight_decay;
    int decoupled;
    double decay;
    double first_loss, last_loss; /* before the first and before the last step */
}} torch_cases[] = {{
{rows}
}};

/* After the last step, case after case. */
static const double torch_parameters[] = {{
{numbers}
}};
#endif"""


def main():
    torch.set_default_dtype(torch.float64)
    optim = torch.optim
    defaults = [default(optim.SGD, "momentum"), default(optim.SGD, "weight_decay"), *default(optim.Adam, "betas"),
                default(optim.Adam, "eps"), default(optim.Adagrad, "eps"),
                default(optim.Adadelta, "rho"), default(optim.Adadelta, "eps")]
    rows, numbers = [], []
    for c in cases():
        parameters, first, last = train(c)
        rows.append(row(c, first, last))
        numbers += parameters
    version = torch.__version__.split("+")[0]
    print(HEADER.format(version=version, steps=STEPS, batches=BATCHES, batch=BATCH, rows="\n".join(rows),
                        defaults=", ".join(map(str, defaults)), numbers=wrapped(numbers)))


main()
