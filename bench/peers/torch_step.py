"""Training steps of rp.h and of PyTorch in turns, in one process, on the same parameters and the same batch.

    torch_step.py OURS.SO [--task NAME] [--threads N] [--seconds N]

Losses of a few steps are compared before anything is timed. `eager` is PyTorch as its tutorials use it, `fused` the
same with the optimizer's fused kernel, `compiled` fused with torch.compile around model and loss. A ratio says how many
times as long PyTorch takes.
"""
import argparse
import ctypes
import gc
import statistics
import sys
import time

import torch
from torch import nn

ACTIVATIONS = {"ae": nn.Tanh, "clf": nn.Softplus, "deep": nn.ReLU, "wide": nn.ReLU}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
CHECK_RATE = {"sgd": 1e-1, "adam": 1e-3}
PAIRS = (("sgd", "sgd"), ("adam", "adam"), ("rp", "sgd"), ("rp_sampled", "sgd"))
RUN = 5e-3  # seconds


def load(path):
    lib = ctypes.CDLL(path)
    floats, ints = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int)
    for name, result, arguments in (
        ("task", ctypes.c_char_p, [ctypes.c_int]), ("method", ctypes.c_char_p, [ctypes.c_int]),
        ("new", ctypes.c_void_p, [ctypes.c_int] * 3), ("widths", ints, [ctypes.c_void_p]),
        ("batch", ctypes.c_int, [ctypes.c_void_p]), ("inputs", floats, [ctypes.c_void_p]),
        ("labels", ints, [ctypes.c_void_p]), ("parameters", floats, [ctypes.c_void_p]),
        ("steps", ctypes.c_float, [ctypes.c_void_p, ctypes.c_int, ctypes.c_float]),
    ):
        function = getattr(lib, "ours_" + name)
        function.restype, function.argtypes = result, arguments
    return lib


def names(get):
    found = []
    while (name := get(len(found))) is not None:
        found.append(name.decode())
    return found


class Ours:
    def __init__(self, lib, task, method, threads):
        self.lib, self.net = lib, lib.ours_new(task, method, threads)

    def steps(self, count, rate):
        return self.lib.ours_steps(self.net, count, rate)


class Theirs:
    def __init__(self, lib, task, method, variant):
        self.name = variant
        ours = lib.ours_new(lib_tasks.index(task), 0, 1)  # for its data and first parameters
        batch, widths = lib.ours_batch(ours), lib.ours_widths(ours)
        widths = [widths[i] for i in range(next(i for i in range(99) if not widths[i]))]
        labels = lib.ours_labels(ours)
        self.inputs = torch.tensor(lib.ours_inputs(ours)[: batch * widths[0]]).view(batch, -1)
        self.labels = torch.tensor(labels[:batch]) if labels else None
        layers = []
        for i, o in zip(widths, widths[1:]):
            layers += [nn.Linear(i, o), ACTIVATIONS[task]()]
        self.model = nn.Sequential(*(layers[:-1] if labels else layers))
        count = sum(p.numel() for p in self.model.parameters())
        nn.utils.vector_to_parameters(torch.tensor(lib.ours_parameters(ours)[:count]), self.model.parameters())
        fused = {} if variant == "eager" else {"fused": True}
        self.optimizer = OPTIMIZERS[method](self.model.parameters(), lr=1e-9, **fused)
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


def check(task, method, ours, theirs):
    for _ in range(3):
        a, b = ours.steps(1, CHECK_RATE[method]), theirs.steps(1, CHECK_RATE[method])
        if abs(a - b) > 1e-3 * abs(b):
            sys.exit(f"{task} {method} {theirs.name}: losses {a} and {b}")


def variants(lib, task, method, threads):
    """Those that work here, each checked."""
    for variant in ("eager", "fused", "compiled"):
        try:
            theirs = Theirs(lib, task, method, variant)
            theirs.steps(1, 0.0)
            theirs = Theirs(lib, task, method, variant)
        except Exception as error:  # no compiler, or no fused kernel: said, and left out
            print(f"note: PyTorch {variant} {method} does not work here: {str(error).splitlines()[0]}", flush=True)
            continue
        check(task, method, Ours(lib, lib_tasks.index(task), lib_methods.index(method), threads), theirs)
        yield theirs


def timed(contender, count):
    time.sleep(0.002)  # threads of the one before go to sleep
    contender.steps(1, 1e-9)
    start = time.perf_counter()
    contender.steps(count, 1e-9)
    return (time.perf_counter() - start) / count


def measure(contenders, seconds):
    counts = {name: max(1, int(RUN / timed(c, 3))) for name, c in contenders.items()}
    times = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[name]) < 7:
        for name, contender in contenders.items():
            times[name].append(timed(contender, counts[name]))
    return times


def compare(lib, task, threads, seconds):
    torch.set_num_threads(threads)
    contenders = {("ours", m): Ours(lib, lib_tasks.index(task), lib_methods.index(m), threads) for m, _ in PAIRS}
    for method in OPTIMIZERS:
        for theirs in variants(lib, task, method, threads):
            contenders["torch " + theirs.name, method] = theirs
    times = measure(contenders, seconds)
    for mine, method in PAIRS:
        for who, optimizer in contenders:
            if who == "ours" or optimizer != method:
                continue
            a, b = times["ours", mine], times[who, optimizer]
            ratio = statistics.median(y / x for x, y in zip(a, b))
            print(f"step task={task} threads={threads} ours={mine} us={1e6 * statistics.median(a):.1f} "
                  f"torch={optimizer} variant={who.split()[1]} torch_us={1e6 * statistics.median(b):.1f} ratio={ratio:.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--task")
    parser.add_argument("--threads", type=int, help="default: one, then two")
    parser.add_argument("--seconds", type=float, default=8, help="for each task (8)")
    arguments = parser.parse_args()
    library = load(arguments.library)
    lib_tasks, lib_methods = names(library.ours_task), names(library.ours_method)
    gc.disable()
    print("torch", torch.__version__)
    for n in [arguments.threads] if arguments.threads else [1, 2]:
        for t in lib_tasks:
            if arguments.task in (None, t):
                compare(library, t, n, arguments.seconds)
