"""Times the safetensors package with the bytes that bench/files.c saves and opens: 100 million parameters.

    python bench/peers/files.py FOLDER
"""
import statistics
import sys
import time

import torch
from safetensors.torch import load_file, save_file

path = f"{sys.argv[1]}/bench_files_peer.safetensors"
torch.set_num_threads(1)
net = {"0.weight": torch.rand(10000, 10000) - 0.5, "0.bias": torch.rand(10000)}
other = {name: torch.empty_like(tensor) for name, tensor in net.items()}


def save():
    save_file(net, path)


def load():  # the package maps the file; adding reads it
    for tensor in load_file(path).values():
        tensor.add_(1)


def load_into():
    for name, tensor in load_file(path).items():
        other[name].copy_(tensor)


for name, run in [("save", save), ("load_and_add", load), ("load_into_used_memory", load_into)]:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(f"files case=safetensors_{name} us={1e6 * statistics.median(times):.0f}")
