"""Exact curvature by rp.h and by torch.func in turns, in one process, on the same parameters, batch and direction.

    torch_curvature.py OURS.SO [--task NAME] [--threads N] [--batch N] [--seconds N]

    hessian_vector   H v: torch.func.jvp of torch.func.grad, forward over reverse
    directional      first and second derivative of the loss along v: torch.func.jvp twice
    sample_norms     the norm of each sample's gradient: torch.func.vmap of torch.func.grad

Results are compared before anything is timed. A ratio says how many times as long PyTorch takes.
"""
import ctypes

import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from torch_step import Ours, Theirs, main, measure, report


class OurCurvature(Ours):
    def __init__(self, lib, task, kind, threads, batch, v, size):
        super().__init__(lib, task, "sgd", threads, batch)
        self.run, self.out = lib.curvature[kind], torch.zeros(size)
        self.v = ctypes.cast(v.data_ptr(), ctypes.POINTER(ctypes.c_float))

    def steps(self, count, rate):
        self.run(self.net, self.v, ctypes.cast(self.out.data_ptr(), ctypes.POINTER(ctypes.c_float)), count)
        return self.out


class TheirCurvature(Theirs):
    def __init__(self, lib, task, kind, batch, v):
        super().__init__(lib, task, "sgd", "eager", batch)
        self.run = getattr(self, kind)
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.at = {name: p.detach() for name, p in trained.items()}
        pieces = torch.split(v, [p.numel() for p in self.at.values()])
        self.v = {name: piece.view_as(p) for (name, p), piece in zip(self.at.items(), pieces)}
        self.targets = self.inputs if self.labels is None else self.labels

    def loss_of(self, parameters, inputs, targets):
        y = functional_call(self.model, parameters, (inputs,))
        if self.labels is not None:
            return nn.functional.cross_entropy(y, targets)
        return 0.5 * nn.functional.mse_loss(y, targets, reduction="sum") / len(y)

    def whole(self, parameters):
        return self.loss_of(parameters, self.inputs, self.targets)

    def hessian_vector(self):
        products = jvp(grad(self.whole), (self.at,), (self.v,))[1]
        return torch.cat([p.flatten() for p in products.values()])

    def directional(self):
        return torch.stack(jvp(lambda at: jvp(self.whole, (at,), (self.v,))[1], (self.at,), (self.v,)))

    def sample_norms(self):
        one = lambda parameters, x, t: self.loss_of(parameters, x.unsqueeze(0), t.unsqueeze(0))
        gradients = vmap(grad(one), (None, 0, 0))(self.at, self.inputs, self.targets)
        return torch.sqrt(sum(g.flatten(1).square().sum(1) for g in gradients.values()))

    def steps(self, count, rate):
        for _ in range(count):
            out = self.run()
        return out


def compare(lib, task, threads, batch, seconds):
    torch.set_num_threads(threads)
    net = Ours(lib, task, "sgd", 1, batch).net
    batch = batch or lib.batch(net)
    v = torch.randn(sum(p.numel() for p in Theirs(lib, task, "sgd", "eager", batch).optimizer.param_groups[0]["params"]))
    v /= v.norm()
    for kind, size in (("hessian_vector", len(v)), ("directional", 2), ("sample_norms", batch)):
        ours, theirs = OurCurvature(lib, task, kind, threads, batch, v, size), TheirCurvature(lib, task, kind, batch, v)
        try:
            want = theirs.steps(1, 0)
        except Exception as error:  # torch.func does not have every layer
            print(f"note: PyTorch has no {kind} of {task}: {str(error).splitlines()[0]}", flush=True)
            continue
        error = float((ours.steps(1, 0) - want).norm() / want.norm())
        if not error < 1e-3:
            raise SystemExit(f"{task} {kind}: differs by {error}")
        times = measure({"ours": ours, "theirs": theirs}, seconds / 3)
        report(f"{kind} task={task} threads={threads} batch={batch}", times["ours"], times["theirs"])


if __name__ == "__main__":
    main(__doc__, compare, (0,))
