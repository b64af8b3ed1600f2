"""Training steps and predictions of rp.h and of PyTorch in turns, in one process, on the same parameters and the same
batch.

    torch_step.py OURS.SO [--task NAME] [--threads N] [--batch N] [--seconds N]

Losses of a few steps are compared before anything is timed. `eager` is PyTorch as its tutorials use it, `fused` the
same with the optimizer's fused kernel, `compiled` fused with torch.compile around model and loss. Of predictions,
`eager` is the model in inference mode, `traced` the same after torch.jit.trace and freeze. A ratio says how many times as
long PyTorch takes.
"""
import argparse
import ctypes
import gc
import itertools
import math
import statistics
import sys
import time

import torch
from torch import nn

ACTIVATIONS = {"ae": nn.Tanh, "clf": nn.Softplus, "deep": nn.ReLU, "wide": nn.ReLU}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
CHECK_RATE = {"sgd": 1e-1, "adam": 1e-3}
PAIRS = (("sgd", "sgd"), ("adam", "adam"), ("default", "adam"), ("rp", "sgd"), ("rp_sampled", "sgd"))
PERIOD = 8  # steps until one of the same work comes again, of the default
VARIANTS = ("eager", "fused", "compiled")
PREDICTIONS = ("eager", "traced")
RUN, LEAST_ROUNDS = 5e-3, 7  # seconds


class Library:
    """ours.c"""

    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        net, integer = ctypes.c_void_p, ctypes.c_int
        floats, integers = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(integer)
        self.new = self.function("new", net, integer, integer, integer, integer)
        self.widths = self.function("widths", integers, net)
        self.batch = self.function("batch", integer, net)
        self.inputs = self.function("inputs", floats, net)
        self.labels = self.function("labels", integers, net)
        self.parameters = self.function("parameters", floats, net)
        self.steps = self.function("steps", ctypes.c_float, net, integer, ctypes.c_float)
        self.predict = self.function("predict", ctypes.c_float, net, integer)
        self.curvature = {name: self.function(name, None, net, floats, floats, integer)
                          for name in ("hessian_vector", "directional", "sample_norms")}
        self.tasks = self.names(self.function("task", ctypes.c_char_p, integer))
        self.methods = self.names(self.function("method", ctypes.c_char_p, integer))

    def function(self, name, result, *arguments):
        function = getattr(self.lib, "ours_" + name)
        function.restype, function.argtypes = result, arguments
        return function

    @staticmethod
    def names(get):
        return [name.decode() for name in iter(map(get, itertools.count()).__next__, None)]


class LastState(nn.Module):
    """Our recurrent layer: the last state of an Elman network, with one bias."""

    def __init__(self, features, units):
        super().__init__()
        self.rnn = nn.RNN(features, units, batch_first=True)
        nn.init.zeros_(self.rnn.bias_hh_l0.requires_grad_(False))

    def forward(self, x):
        return self.rnn(x)[0][:, -1]


def front(task):
    """The layers before the dense ones, and how many numbers they give."""
    if task == "conv":
        return [nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()], 256
    return [nn.Unflatten(1, (28, 28)), LastState(28, 128)], 128


class Ours:
    def __init__(self, lib, task, method, threads, batch):
        self.lib, self.net = lib, lib.new(lib.tasks.index(task), lib.methods.index(method), threads, batch)

    def steps(self, count, rate):
        return self.lib.steps(self.net, count, rate)


class OurPrediction(Ours):
    def steps(self, count, rate):
        return self.lib.predict(self.net, count)


class Theirs:
    """The same net with the same parameters, on the same data."""

    def __init__(self, lib, task, method, variant, batch):
        self.variant = variant
        ours = Ours(lib, task, "sgd", 1, batch).net
        batch, labels = lib.batch(ours), lib.labels(ours)
        widths = list(itertools.takewhile(bool, map(lib.widths(ours).__getitem__, itertools.count())))
        self.inputs = torch.tensor(lib.inputs(ours)[: batch * widths[0]]).view(batch, -1)
        self.labels = torch.tensor(labels[:batch]) if labels else None
        layers = []
        if task not in ACTIVATIONS:
            layers, widths[0] = front(task)
        for i, o in zip(widths, widths[1:]):
            layers += [nn.Linear(i, o), ACTIVATIONS.get(task, nn.Identity)()]
        self.model = nn.Sequential(*(layers[:-1] if labels else layers))
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        count = sum(p.numel() for p in parameters)
        nn.utils.vector_to_parameters(torch.tensor(lib.parameters(ours)[:count]), parameters)
        self.optimizer = OPTIMIZERS[method](parameters, fused=variant != "eager")
        self.forward = torch.compile(self.loss) if variant == "compiled" else self.loss

    def loss(self):
        y = self.model(self.inputs)
        if self.labels is not None:
            return nn.functional.cross_entropy(y, self.labels)
        return 0.5 * nn.functional.mse_loss(y, self.inputs, reduction="sum") / len(y)

    def steps(self, count, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for _ in range(count):
            self.optimizer.zero_grad()
            loss = self.forward()
            loss.backward()
            self.optimizer.step()
        return loss.item()


class TheirPrediction(Theirs):
    def __init__(self, lib, task, variant, batch):
        super().__init__(lib, task, "sgd", "eager", batch)
        self.variant, self.run = variant, self.model.eval()
        if variant == "traced":
            self.run = torch.jit.freeze(torch.jit.trace(self.model, self.inputs))

    def steps(self, count, rate):
        with torch.inference_mode():
            for _ in range(count):
                y = self.run(self.inputs)
        return y.flatten()[0].item()


def check(task, method, ours, theirs):
    for _ in range(3):
        a, b = ours.steps(1, CHECK_RATE[method]), theirs.steps(1, CHECK_RATE[method])
        if abs(a - b) > 1e-3 * abs(b):
            sys.exit(f"{task} {method} {theirs.variant}: losses {a} and {b}")


def variants(lib, task, method, threads, batch):
    """Those that work here, each checked."""
    for variant in VARIANTS:
        try:
            theirs = Theirs(lib, task, method, variant, batch)
            theirs.steps(1, 0.0)
            theirs = Theirs(lib, task, method, variant, batch)
        except Exception as error:  # no compiler, or no fused kernel: said, and left out
            print(f"note: PyTorch {variant} {method} does not work here: {str(error).splitlines()[0]}", flush=True)
            continue
        check(task, method, Ours(lib, task, method, threads, batch), theirs)
        yield theirs


def timed(contender, count):
    time.sleep(0.008)  # threads of the one before, which wait awake for some milliseconds, go to sleep
    contender.steps(1, 1e-9)
    start = time.perf_counter()
    contender.steps(count, 1e-9)
    return (time.perf_counter() - start) / count


def measure(contenders, seconds):
    counts = {name: PERIOD * math.ceil(RUN / PERIOD / timed(c, 3)) for name, c in contenders.items()}
    times = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[name]) < LEAST_ROUNDS:
        for name, contender in contenders.items():
            times[name].append(timed(contender, counts[name]))
    return times


def report(what, a, b):
    print(f"{what} us={1e6 * statistics.median(a):.1f} torch_us={1e6 * statistics.median(b):.1f} "
          f"ratio={statistics.median(y / x for x, y in zip(a, b)):.2f} "
          f"ratio_of_least={min(b) / min(a):.2f}", flush=True)


def compare_steps(lib, task, threads, batch, seconds):
    contenders = {("ours", mine): Ours(lib, task, mine, threads, batch) for mine, _ in PAIRS}
    for method in OPTIMIZERS:
        contenders |= {(theirs.variant, method): theirs for theirs in variants(lib, task, method, threads, batch)}
    times = measure(contenders, seconds)
    for (mine, method), variant in itertools.product(PAIRS, VARIANTS):
        if (variant, method) in times:
            report(f"step task={task} threads={threads} batch={batch} optimizer={mine} torch={method} "
                   f"variant={variant}", times["ours", mine], times[variant, method])


def compare_predictions(lib, task, threads, batch, seconds):
    contenders = {"ours": OurPrediction(lib, task, "sgd", threads, batch)}
    for variant in PREDICTIONS:
        contenders[variant] = TheirPrediction(lib, task, variant, batch)
        a, b = contenders["ours"].steps(1, 0), contenders[variant].steps(1, 0)
        if abs(a - b) > 1e-4 * (1 + abs(b)):
            sys.exit(f"{task} {variant}: outputs {a} and {b}")
    times = measure(contenders, seconds)
    for variant in PREDICTIONS:
        report(f"predict task={task} threads={threads} batch={batch} variant={variant}", times["ours"],
               times[variant])


def compare(lib, task, threads, batch, seconds):
    torch.set_num_threads(threads)
    batch = batch or lib.batch(Ours(lib, task, "sgd", 1, 0).net)
    compare_steps(lib, task, threads, batch, seconds)
    compare_predictions(lib, task, threads, batch, seconds / 4)


def main(description, compare, batches):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", metavar="OURS.SO", type=Library)
    parser.add_argument("--task", help="default: all")
    parser.add_argument("--threads", type=int, help="default: one, then two")
    parser.add_argument("--batch", type=int, help=f"0: the task's; default: {' and '.join(map(str, batches))}")
    parser.add_argument("--seconds", type=float, default=8, help="for each task and number of threads (8)")
    arguments = parser.parse_args()
    gc.disable()
    print("torch", torch.__version__)
    for threads in [arguments.threads] if arguments.threads else [1, 2]:
        for task in [arguments.task] if arguments.task else arguments.library.tasks:
            for batch in batches if arguments.batch is None else [arguments.batch]:
                compare(arguments.library, task, threads, batch, arguments.seconds)


if __name__ == "__main__":
    main(__doc__, compare, (1, 0))
