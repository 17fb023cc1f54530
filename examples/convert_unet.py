"""A trained U-Net whose convolutions become the layers of other variants: `python3 -m examples.convert_unet`.

The network learns to remove noise. Its copies get other convolutions by one call of `convert`, keep
their parameters, go on training with the optimizer's usual code, and are exported. Here are the
variants that compute something of a picture alone; the others ask for a mask or for more sources.
"""

import copy

import torch
from torch import nn
from torch.nn.functional import mse_loss

from impls import convert
from impls.kernel_masked.named_masks import cross

STEPS = 20


class UNet(nn.Module):
    """Two levels, joined by a skip connection; plain convolutions, as anyone would write them."""

    def __init__(self, width=16):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(width, width, 5, padding=2, groups=4), nn.ReLU())
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.leave = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x):
        wide = self.enter(x)
        narrow = self.deep(self.down(wide))
        return self.leave(torch.cat([wide, self.up(narrow)], dim=1))


def batch(n, draw, size=24):
    """Return noisy pictures of one disc each, and the pictures themselves."""
    centre = torch.rand(n, 2, 1, 1, generator=draw) * size
    radius = 3 + 5 * torch.rand(n, 1, 1, generator=draw)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    away = ((rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2).sqrt()
    clean = torch.sigmoid(radius - away).unsqueeze(1)
    return clean + 0.3 * torch.randn(clean.shape, generator=draw), clean


def train(model, steps=STEPS):
    """Train in place; return the loss over pictures that it has not seen."""
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        noisy, clean = batch(8, draw)
        optimizer.zero_grad()
        mse_loss(model(noisy), clean).backward()
        optimizer.step()
    return loss(model)


def loss(model):
    noisy, clean = batch(32, torch.Generator().manual_seed(2))
    with torch.no_grad():
        return mse_loss(model.eval()(noisy), clean).item()


def of_three(_, module):
    return module.kernel_size == (3, 3)


CHOICES = {
    "plain": {},
    "masked": {},  # without a mask the plain convolution, bit for bit
    "partial": {},  # windows at the border are weighted up
    "kernel_masked": {"kernel_mask": cross((3, 3)), "where": of_three},
    "diff": {"degree": 1},  # the picture goes on beyond its border by straight lines
    "boundary": {"method": "reflect"},
}


def main():
    torch.manual_seed(0)
    trained = UNet()
    print(f"a trained U-Net: loss {train(trained, 3 * STEPS):.4f}")
    picture = batch(2, torch.Generator().manual_seed(3))[0]
    expected = trained(picture)
    print(f"{'variant':<15}{'replaced':>9}{'change':>9}{'loss':>9}{'trained':>9}{'export':>9}")
    for variant, options in CHOICES.items():
        model, replaced = copy.deepcopy(trained), []
        convert(model, variant, replaced=replaced, **options)
        change = (model(picture) - expected).abs().max().item()
        before, after = loss(model), train(model)
        exported = torch.export.export(model.eval(), (picture,)).module()
        apart = (exported(picture) - model(picture)).abs().max().item()
        figures = f"{change:>9.4f}{before:>9.4f}{after:>9.4f}{apart:>9.0e}"
        print(f"{variant:<15}{len(replaced):>9}{figures}")
        assert apart < 1e-5
        assert change == 0 or variant not in {"plain", "masked"}
        assert after < before


if __name__ == "__main__":
    main()
