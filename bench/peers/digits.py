"""What digits.c does, in PyTorch, with Adam: digits.py FILE"""
import sys

import torch
from torch import nn

TRAINING, VALIDATION, SIZE, BATCH = 5000, 1000, 28 * 28, 100
COUNT = TRAINING + VALIDATION

torch.manual_seed(1)
with open(sys.argv[1], "rb") as file:
    data = bytearray(file.read())
images = torch.frombuffer(data, dtype=torch.float32, count=COUNT * SIZE).view(COUNT, SIZE)
labels = torch.frombuffer(data, dtype=torch.int32, offset=COUNT * SIZE * 4).long()
net = nn.Sequential(nn.Linear(SIZE, 400), nn.Softplus(), nn.Linear(400, 100), nn.Softplus(),
                    nn.Linear(100, 36), nn.Softplus(), nn.Linear(36, 10))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(2):
    for batch in torch.randperm(TRAINING).split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
with torch.no_grad():
    right = net(images[TRAINING:]).argmax(1) == labels[TRAINING:]
print(f"accuracy {right.float().mean().item():.4f}")
