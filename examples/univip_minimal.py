"""UniVIP (Li et al., CVPR 2022, arXiv 2203.06965) in one file of PyTorch.

    python examples/univip_minimal.py DIR --boxes boxes.json --out resnet50.pth

boxes.json maps file names in DIR to boxes in pixels, the best box first:
{"a.jpg": [[x1, y1, x2, y2], ...]}. Random boxes replace missing boxes. Load
the result with ``resnet50().load_state_dict(torch.load(PATH), strict=False)``.
"""
import argparse
import copy
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision import transforms as T

K = 4  # instances per image
SCENE_SIZE, INSTANCE_SIZE = 224, 96  # of the views, in pixels
MIN_SIZE = 64  # shortest side of an overlap and of a random box, in pixels


# Sec. 3.1: two scenes, and K instances inside their overlap.
def random_crop(image):
    """Return a random box with 8-100 % of the area of the image."""
    y, x, height, width = T.RandomResizedCrop.get_params(
        image, scale=(0.08, 1), ratio=(3 / 4, 4 / 3))
    return x, y, x + width, y + height


def random_box(x1, y1, x2, y2):
    """Return a random box inside a box."""
    width = random.randint(min(MIN_SIZE, x2 - x1), x2 - x1)
    height = random.randint(min(MIN_SIZE, y2 - y1), y2 - y1)
    x, y = random.randint(x1, x2 - width), random.randint(y1, y2 - height)
    return x, y, x + width, y + height


def intersection(a, b):
    """Return the intersection of two overlapping boxes."""
    return *map(max, a[:2], b[:2]), *map(min, a[2:], b[2:])


def sample_regions(image, boxes):
    """Return two scene boxes, and K instance boxes inside their overlap."""
    whole = (0, 0, *image.size)
    attempts = []
    for _ in range(20):
        a, b = random_crop(image), random_crop(image)
        x1, y1, x2, y2 = overlap = intersection(a, b)
        if min(x2 - x1, y2 - y1) >= MIN_SIZE:
            inside = [box for box in boxes
                      if intersection(box, overlap) == tuple(box)]
            attempts.append((a, b, overlap, inside[:K]))
    # Take the attempt with the most boxes and add random boxes.
    a, b, overlap, instances = max(
        attempts, key=lambda x: len(x[3]), default=(whole, whole, whole, []))
    while len(instances) < K:
        instances.append(random_box(*overlap))
    return a, b, instances


def byol_augmentation(blur, solarize):
    """Return BYOL's augmentation with these two probabilities."""
    return T.Compose([
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=blur),
        T.RandomSolarize(128, p=solarize),
        T.ToTensor(),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


class Views(Dataset):
    """Views [scene_1, scene_2, instance_1, ..., instance_K] of each image."""

    def __init__(self, folder, boxes):
        self.folder, self.boxes = Path(folder), boxes
        self.names = sorted(
            p.relative_to(folder).as_posix() for p in self.folder.rglob('*')
            if p.suffix.lower() in ('.jpg', '.jpeg', '.png'))
        first, second = byol_augmentation(1, 0), byol_augmentation(0.1, 0.2)
        self.kinds = [(SCENE_SIZE, first), (SCENE_SIZE, second),
                      *[(INSTANCE_SIZE, first)] * K]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        name = self.names[index]
        image = Image.open(self.folder / name).convert('RGB')
        a, b, instances = sample_regions(image, self.boxes.get(name, []))
        return [augment(image.resize((size, size), Image.BICUBIC, region))
                for region, (size, augment) in zip(
                    [a, b, *instances], self.kinds)]


# Sec. 3.1 to 3.3: online branch f_o, target branch f_t, three losses.
def mlp(in_channels, hidden, out_channels):
    """Return a projector or predictor as in BYOL."""
    return nn.Sequential(
        nn.Linear(in_channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, out_channels, bias=False))


class UniVIP(nn.Module):
    """UniVIP for a backbone from (B, 3, H, W) to (B, in_channels)."""

    def __init__(self, backbone, in_channels, hidden=4096, channels=256):
        super().__init__()
        self.backbone = backbone
        self.projector = mlp(in_channels, hidden, channels)
        self.predictor = mlp(channels, hidden, channels)
        self.fusion = nn.Linear(K * channels, channels)
        self.target = copy.deepcopy(nn.Sequential(backbone, self.projector))
        self.target.requires_grad_(False)

    def forward(self, scene1, scene2, *instances):
        """Return the three losses: (scene, scene-instance, instance)."""
        views = scene1, scene2, torch.cat(instances)
        f_o1, f_o2, o = (self.predictor(self.projector(self.backbone(x)))
                         for x in views)
        with torch.no_grad():
            f_t1, f_t2, t = (self.target(x) for x in views)
        o, t = (x.unflatten(0, (K, -1)).transpose(0, 1) for x in (o, t))
        fused = self.fusion(o.flatten(1))  # (B, K, C) to (B, C)
        return (cosine_loss(f_o1, f_t2) + cosine_loss(f_o2, f_t1),
                cosine_loss(fused, f_t1) + cosine_loss(fused, f_t2),
                transport_loss(o, t, (f_o1 + f_o2) / 2, (f_t1 + f_t2) / 2))

    @torch.no_grad()
    def update_target(self, momentum):
        """Set target = momentum * target + (1 - momentum) * online."""
        online = nn.Sequential(self.backbone, self.projector)
        for old, new in zip(self.target.parameters(), online.parameters()):
            old.lerp_(new, 1 - momentum)


def cosine_loss(prediction, target):
    """Return the mean negative cosine similarity."""
    return -F.cosine_similarity(prediction, target, dim=-1).mean()


def transport_loss(o, t, f_o, f_t):
    """Return the loss of instances o, t (B, K, C) and scenes f_o, f_t."""
    similarity = F.normalize(o, dim=-1) @ F.normalize(t, dim=-1).mT
    with torch.no_grad():  # the plan is a constant for the gradient
        plan = sinkhorn(1 - similarity, relevance(o, f_t), relevance(t, f_o))
    return -(similarity * plan).sum(dim=(1, 2)).mean()


def relevance(instances, scene):
    """Return the relevance of each instance to the scene, with sum 1."""
    mass = torch.einsum('bkc,bc->bk', instances, scene).relu()
    total = mass.sum(dim=1, keepdim=True)
    return torch.where(total > 0, mass / total, 1 / K)


def sinkhorn(cost, supply, demand, epsilon=0.1, num_iters=50):
    """Return transport plans (B, K, K). The last two defaults are OTA's."""
    kernel = torch.exp(-cost / epsilon)
    supply, demand = supply.unsqueeze(2), demand.unsqueeze(2)
    u = torch.ones_like(supply)
    for _ in range(num_iters):
        v = demand / (kernel.mT @ u)
        u = supply / (kernel @ v)
    return u * kernel * v.mT


# Sec. 4.1: SGD, warm-up over 4 epochs, cosine schedules of lr and EMA.
def train(model, loader, epochs, device):
    """Train the model and print the mean losses of each epoch."""
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.,
        momentum=0.9, weight_decay=1e-4)
    model.to(device).train()
    for epoch in range(epochs):
        total = torch.zeros(3, device=device)
        for i, views in enumerate(loader):
            done = epoch + i / len(loader)  # in epochs
            cosine = (1 + math.cos(math.pi * done / epochs)) / 2
            optimizer.param_groups[0]['lr'] = (
                0.2 * loader.batch_size / 256 * min(1, done / 4) * cosine)
            losses = torch.stack(model(*(view.to(device) for view in views)))
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            model.update_target(1 - 0.01 * cosine)  # 0.99 to 1
            total += losses.detach() / len(loader)
        print('epoch {}: scene {:.3f}, scene-instance {:.3f}, instance {:.3f}'
              .format(epoch + 1, *total.tolist()))


def main(args=None):
    """Train on a folder of images and save the backbone."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('folder', metavar='DIR', help='folder of images')
    parser.add_argument('--boxes', help='JSON file: file name to boxes')
    parser.add_argument('--arch', default='resnet50', help='of torchvision')
    parser.add_argument('--epochs', type=int, default=100)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=4)
    parser.add_argument('--out', default='univip_backbone.pth')
    args = parser.parse_args(args)

    boxes = json.loads(Path(args.boxes).read_text()) if args.boxes else {}
    dataset = Views(args.folder, boxes)
    print(f'{len(dataset)} images,', len(boxes.keys() & set(dataset.names)),
          'with boxes')
    loader = DataLoader(
        dataset, min(args.batch_size, len(dataset)), shuffle=True,
        drop_last=True, num_workers=args.workers)
    backbone = models.get_model(args.arch)
    in_channels, backbone.fc = backbone.fc.in_features, nn.Identity()
    model = UniVIP(backbone, in_channels)
    train(model, loader, args.epochs,
          'cuda' if torch.cuda.is_available() else 'cpu')
    torch.save(model.backbone.cpu().state_dict(), args.out)


if __name__ == '__main__':
    main()
