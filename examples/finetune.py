"""Makes examples/finetune.safetensors, which finetune.c opens: a net that PyTorch has trained on many samples.

    python examples/finetune.py
"""
import torch
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(1)
net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(net.parameters(), 3e-3)
for step in range(5000):
    x = torch.rand(256, 2) * 2 - 1
    loss = ((net(x) - torch.sin(6 * x[:, :1]) * torch.cos(5 * x[:, 1:])) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 4000:
        optimizer.param_groups[0]["lr"] = 3e-4
print(f"loss {loss.item():.5f}")
save_file(net.state_dict(), "examples/finetune.safetensors")
