"""Images of different sizes in one batch, each as if it were alone: `python3 -m examples.carry_masks`.

Every image is padded to the largest of its batch, with a mask that is 1 where it is. A network that
carries the mask is blind to the padding: in its convolutions, its batch statistics and its pooling.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from impls import MaskedBatchNorm2d, MaskedMaxPool2d, MaskedMean, MaskedSequential
from impls.input_masked import InputMaskedConv2d
from impls.masked import MaskedConv2d

WIDTH, STEPS = 16, 30


class Classifier(nn.Module):
    """Tells rising from falling stripes in images of any size."""

    def __init__(self):
        super().__init__()
        self.features = MaskedSequential(
            MaskedConv2d(1, WIDTH, 3, padding=1, apply_mask=True),
            MaskedBatchNorm2d(WIDTH),
            nn.ReLU(),
            MaskedMaxPool2d(2, ceil_mode=True),
            InputMaskedConv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            MaskedMean(),
        )
        self.decide = nn.Linear(WIDTH, 2)

    def forward(self, x, mask=None):
        return self.decide(self.features(x, mask).output)


def images(n, draw):
    """Return stripes of random direction, period and size, with the direction of each."""
    found, labels = [], torch.randint(0, 2, (n,), generator=draw)
    for label in labels:
        height, width = torch.randint(7, 24, (2,), generator=draw).tolist()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        phase, period = 6.28 * torch.rand(1, generator=draw), 1 + torch.rand(1, generator=draw)
        stripes = torch.sin((rows + (2 * label - 1) * columns) / period + phase)
        found.append((stripes + 0.5 * torch.randn(stripes.shape, generator=draw)).unsqueeze(0))
    return found, labels


def padded(samples, filling=0.0):
    """Return one batch `(N, C, H, W)` of all samples, and its mask `(N, 1, H, W)`."""
    size = [max(sample.shape[axis] for sample in samples) for axis in (1, 2)]
    x = torch.full((len(samples), samples[0].shape[0], *size), filling)
    mask = torch.zeros(len(samples), 1, *size)
    for i, sample in enumerate(samples):
        box = (i, slice(None), *map(slice, sample.shape[1:]))
        x[box], mask[box] = sample, 1
    return x, mask


def train(model, draw):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        samples, labels = images(16, draw)
        optimizer.zero_grad()
        cross_entropy(model(*padded(samples)), labels).backward()
        optimizer.step()


def main():
    torch.manual_seed(0)
    draw, model = torch.Generator().manual_seed(1), Classifier()
    train(model, draw)
    model.eval()

    samples, labels = images(64, draw)
    sizes = [tuple(sample.shape[1:]) for sample in samples]
    print(f"{len(samples)} images of {len(set(sizes))} sizes, {min(sizes)} to {max(sizes)}")
    with torch.no_grad():
        batch = model(*padded(samples))
        alone = torch.cat([model(sample.unsqueeze(0)) for sample in samples])
        rubbish = model(*padded(samples, filling=float("nan")))
        maskless = model(padded(samples)[0])
    right = (batch.argmax(1) == labels).float().mean().item()
    print(f"right: {right:.0%}")
    print(f"with its mask, at most {(batch - alone).abs().max():.0e} from each image alone")
    print(f"without a mask, up to {(maskless - alone).abs().max():.2f} from it")
    print(f"the padding filled with NaN changes nothing: {torch.equal(rubbish, batch)}")
    torch.testing.assert_close(batch, alone)
    assert torch.equal(rubbish, batch)
    assert right > 0.9


if __name__ == "__main__":
    main()
