"""Torch-Pruning to half the operations, channels in twos, then three epochs."""

import task
import torch
import torch_pruning as tp

EPOCHS, BATCH = 3, 128

torch.manual_seed(0)
net = task.module()
inputs, labels = task.arrays("train")
x, y = torch.from_numpy(inputs["x"]), torch.from_numpy(labels)
last = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)][-1]
before = tp.utils.count_ops_and_params(net, x[:1])[0]
importance = tp.importance.GroupMagnitudeImportance(p=2)
pruner = tp.pruner.BasePruner(
    net, x[:1], importance, global_pruning=False, pruning_ratio=0.9, iterative_steps=100, ignored_layers=[last],
    round_to=2,
)  # fmt: skip
while tp.utils.count_ops_and_params(net, x[:1])[0] > before / 2:
    pruner.step()
optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(x) // BATCH))
net.train()
for _ in range(EPOCHS):
    for places in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[places]), y[places]).backward()
        optimizer.step()
        schedule.step()
net.eval()
batch = torch.export.Dim("batch", min=2)
program = torch.onnx.export(net, (x[:2],), dynamo=True, dynamic_shapes=({0: batch},), external_data=False)
program.save("model.onnx")
