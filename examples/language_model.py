"""A language model of convolutions that see no future: `python3 -m examples.language_model`.

Letter by letter it learns a poem (Edward Lear, 1871). Verses of different lengths share a batch, with
a mask; a causal kernel mask keeps every output from what comes after it, whatever the optimizer does.
"""

from math import log
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from impls import MaskedSequential
from impls.kernel_masked import KernelMaskedConv1d
from impls.kernel_masked.named_masks import causal

VERSES = (Path(__file__).parent / "owl_and_pussycat.txt").read_text(encoding="utf-8").splitlines()
LETTERS = sorted({"\n", *"".join(VERSES)})
WIDTH, STEPS = 64, 60


def layer(c_in, c_out, kernel_size=7, dilation=1):
    """Return a convolution of the input's size whose taps behind the centre never act."""
    return KernelMaskedConv1d(
        c_in, c_out, kernel_size, padding="same", dilation=dilation,
        kernel_mask=causal((kernel_size,)),
    )  # fmt: skip


class LanguageModel(nn.Module):
    """Predicts the next letter of a verse from those before."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS), WIDTH)
        self.body = MaskedSequential(
            layer(WIDTH, WIDTH), nn.GELU(),
            layer(WIDTH, WIDTH, dilation=2), nn.GELU(),
            layer(WIDTH, WIDTH, dilation=4), nn.GELU(),
            layer(WIDTH, len(LETTERS), kernel_size=1),
        )  # fmt: skip

    def forward(self, letters, mask=None):
        return self.body(self.embed(letters).movedim(-1, 1), mask).output


def encoded(verses):
    """Return letters `(N, L)`, each verse between line ends, and the mask `(N, 1, L)`."""
    lines = [torch.tensor([LETTERS.index(c) for c in f"\n{verse}\n"]) for verse in verses]
    letters = nn.utils.rnn.pad_sequence(lines, batch_first=True)
    lengths = torch.tensor([len(line) for line in lines])
    return letters, (torch.arange(letters.shape[1]) < lengths.unsqueeze(1)).unsqueeze(1)


def loss_of(model, letters, mask):
    """Return the mean negative logarithm of the probability of every letter but the first."""
    scores, seen = model(letters[:, :-1], mask[..., :-1]), mask[:, 0, 1:]
    return cross_entropy(scores.movedim(1, -1)[seen], letters[:, 1:][seen])


def write(model, start, most=60):
    """Return `start` and what the model thinks most probable behind it, to the end of the line."""
    verse = start
    while len(verse) < most and not verse.endswith("\n"):
        letters = encoded([verse])[0][:, :-1]
        verse += LETTERS[model(letters)[0, :, -1].argmax()]
    return verse.strip()


def main():
    torch.manual_seed(0)
    model = LanguageModel()
    letters, mask = encoded([verse for verse in VERSES if verse])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    print(f"{len(letters)} verses, {len(LETTERS)} letters; log of that is {log(len(LETTERS)):.2f}")
    for step in range(STEPS + 1):
        loss = loss_of(model, letters, mask)
        if step % 20 == 0:
            print(f"step {step:>3}  loss {loss.item():.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # Nothing leaks from the future: other letters there change nothing before them, to the bit.
    other = letters.clone()
    other[:, 10:] = torch.randint_like(other[:, 10:], len(LETTERS))
    before, after = (model(value, mask)[..., :10] for value in (letters, other))
    print(f"letters before the tenth see nothing of what follows: {torch.equal(before, after)}")
    assert torch.equal(before, after)
    # ... and a verse says in the batch what it says alone.
    alone = model(*encoded([VERSES[1]]))
    torch.testing.assert_close(model(letters, mask)[1:2, :, : alone.shape[2]], alone)
    print(f"The Owl ... -> {write(model, 'The Owl')}")
    assert loss.item() < 0.5 * log(len(LETTERS))


if __name__ == "__main__":
    main()
