"""open_clip's ClipLoss in two processes → crates/mm-dist/tests/fixtures/clip_loss.json.

    python xtask/parity/clip_loss.py crates/mm-dist/tests/fixtures/clip_loss.json

Needs torch and open_clip_torch (its loss.py alone is imported). ClipLoss(local_loss=True, gather_with_grad=True) is what mm
computes: the loss is the mean over the processes, the gradients of a process's rows are those before averaging.
"""

import importlib.util
import json
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD_SIZE, ROWS, DIM, SCALE = 2, 5, 7, 12.5


def clip_loss_class():
    spec = importlib.util.find_spec("open_clip")
    path = os.path.join(os.path.dirname(spec.origin), "loss.py")
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClipLoss


def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, WORLD_SIZE, ROWS, DIM, generator=generator)


def work(rank, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29611")
    dist.init_process_group("gloo", rank=rank, world_size=WORLD_SIZE)
    images, texts = (features()[modality, rank].clone().requires_grad_() for modality in range(2))
    scale = torch.tensor(SCALE, requires_grad=True)
    loss_of = clip_loss_class()(local_loss=True, gather_with_grad=True, rank=rank, world_size=WORLD_SIZE)
    normalize = torch.nn.functional.normalize
    loss = loss_of(normalize(images, dim=-1), normalize(texts, dim=-1), scale)
    loss.backward()
    result = {"loss": loss.item(), "images": images.grad.tolist(), "texts": texts.grad.tolist(), "scale": scale.grad.item()}
    with open(os.path.join(folder, f"{rank}.json"), "w") as file:
        json.dump(result, file)
    dist.destroy_process_group()


def main():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, args=(folder,), nprocs=WORLD_SIZE)
        ranks = [json.load(open(os.path.join(folder, f"{rank}.json"))) for rank in range(WORLD_SIZE)]
    fixture = {
        "scale": SCALE,
        "images": features()[0].tolist(),
        "texts": features()[1].tolist(),
        "loss": sum(rank["loss"] for rank in ranks) / WORLD_SIZE,
        "scale_gradient": sum(rank["scale"] for rank in ranks) / WORLD_SIZE,
        "image_gradients": [rank["images"] for rank in ranks],
        "text_gradients": [rank["texts"] for rank in ranks],
    }
    with open(sys.argv[1], "w") as file:
        json.dump(fixture, file)
        file.write("\n")


if __name__ == "__main__":
    main()
