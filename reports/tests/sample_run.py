"""A synthetic run that holds every status, a placebo, and names from strangers."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from harness.machine import Machine
from harness.results import (
    ImplementationCard,
    LawCard,
    Measurement,
    Outcome,
    Recorder,
    Run,
    Status,
    VariantCard,
    Verdict,
)
from reports.payload import unpacked

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = "</script><img src=x onerror=alert(2)>$\\frac$ & \"'`{{ 7*7 }}"
DETAIL = """law       [Z] linear_in_signal: f(3x + y) = 3 f(x) + f(y)
case      n1 c1>1 i3x3 k3x3 s1x1 p1x1 d1x1 g1
left      [[ 2.  4.  2.]
           [ 4.  8. <5>]]
right     [[ 2.  4.  2.]
           [ 4.  8.  4.]]
differs   at [0, 0, 1, 2]: 5.0 is not 4.0"""
SHAPES = {
    "stem": "n2 c3>16 i64x64 k7x7 s2x2 p3x3 d1x1 g1",
    "body": "n2 c32>32 i28x28 k3x3 s1x1 p1x1 d1x1 g1",
    "depthwise": "n2 c32>32 i28x28 k3x3 s1x1 p1x1 d1x1 g32",
    "pointwise": "n2 c64>64 i14x14 k1x1 s1x1 p0x0 d1x1 g1",
    "dilated": "n1 c16>16 i32x32 k3x3 s1x1 p2x2 d2x2 g1",
    "volume": "n1 c8>8 i12x12x12 k3x3x3 s1x1x1 p1x1x1 d1x1x1 g1",
}
LAWS = tuple(
    LawCard(
        id=f"G{i}",
        name=name,
        statement=statement,
        requires=("linear_in_signal",),
        domain="padding 0",
        sharp=i == 1,
        relates=("masked",) if i == 2 else (),
    )
    for i, (name, statement) in enumerate(
        {
            "agrees_with_the_oracle": "f(x) = oracle(x), gradients equal",
            "linear_in_signal": "f(3x + y) = 3 f(x) + f(y)",
            "batch_is_independent": "f(cat) = cat f",
            "masked_values_are_invisible": "f(x, m) = f(x', m) where x = x' on m & elsewhere <any>",
            "inputs_stay_unmodified": "x, m, w, b are the same bytes after a call",
        }.items(),
        start=1,
    )
)
FAILURES = {
    (0, "volume", "by_taps"): (Status.UNSUPPORTED, "spatial_dims=3 needs the Triton kernel"),
    (0, "dilated", "compiled"): (Status.CRASHED, f"RuntimeError: {HOSTILE}"),
    (1, "pointwise", "by_taps"): (Status.REFUTED, "G2 linear_in_signal is refuted on this case"),
    (1, "volume", "compiled"): (Status.TIMED_OUT, "no block finished within 60 s"),
    (1, "stem", "compiled"): (Status.OUT_OF_MEMORY, "out of memory: 9 GiB were asked for"),
    (1, "dilated", "by_taps"): (Status.NOT_SELECTED, "the budget of 300 s was spent"),
    (1, "body", BREAKOUT): (Status.NO_TIME, "no process came to it in time"),
}

THROTTLED = (0, "pointwise", "compiled"), "9 of 12 blocks ran at another clock"
"""A row that keeps its samples, and is not compared."""


def make_run(folder: Path, *, variants: int = 4, processes: int = 5, blocks: int = 12) -> Path:
    """Write a run with `eager` as baseline and placebo, faster `by_taps` and slower `compiled`."""
    draw = random.Random(7)
    names = ["partial", "masked", HOSTILE, "sound", *(f"variant_{i}" for i in range(variants - 4))]
    names = names[:variants]
    recorder = Recorder(folder)
    recorder.write_run(describe_run(folder.name, (*names, "diff"), processes, blocks))
    contenders = {"eager": 1.0, "by_taps": 0.62, "compiled": 1.31, BREAKOUT: 0.995}
    for v, variant in enumerate(names):
        for c, (case_name, case) in enumerate(SHAPES.items()):
            for direction, size in (("forward", 1.0), ("backward", 2.6)):
                for process in range(processes):
                    pace = [size * (1 + c) * draw.lognormvariate(0, 0.05) for _ in range(blocks)]
                    placebo = [("eager", 1.0, True)] if c == 0 else []
                    for name, speed, is_placebo in [
                        *((name, speed, False) for name, speed in contenders.items()),
                        *placebo,
                    ]:
                        row: dict[str, Any] = {
                            "run_id": folder.name, "variant": variant, "implementation": name,
                            "case": f"{case} float32 contiguous exact seed0", "case_name": case_name,
                            "direction": direction, "dtype": "float32", "device": "cpu",
                            "threads": 1, "placebo": is_placebo, "process": process,
                        }  # fmt: skip
                        failure = FAILURES.get((v, case_name, name))
                        throttled = THROTTLED[0] == (v, case_name, name)
                        if failure:
                            recorder.add(Measurement(**row, status=failure[0], reason=failure[1]))
                            continue
                        slope = 1.0 if name == "eager" else 1 + 0.06 * c + 0.03 * v
                        own = speed * slope * draw.lognormvariate(0, 0.006)
                        samples = [
                            round(2e6 * own * p * draw.lognormvariate(0, 0.01)) for p in pace
                        ]
                        recorder.add(
                            Measurement(
                                **row,
                                block=tuple(range(blocks)),
                                samples_ns=tuple(samples),
                                calls_per_sample=8,
                                peak_bytes=round(3e6 * (1 + c) * (0.63 if speed < 0.9 else 1)),
                                saved_bytes=round(1e6 * (1 + c))
                                if direction == "backward"
                                else None,
                                status=Status.THROTTLED if throttled else Status.MEASURED,
                                reason=THROTTLED[1] if throttled else "",
                                proof="agrees with the oracle, 3 inputs",
                            )
                        )
    for verdict in _verdicts(folder.name, names, contenders):
        recorder.add(verdict)
    return folder


def describe_run(run_id: str, names: tuple[str, ...], processes: int, blocks: int) -> Run:
    def card(name: str, kind: str, reason: str | None = None) -> ImplementationCard:
        needs = ("triton", "cuda") if reason else ()
        return ImplementationCard(
            name=name,
            kind=kind,
            needs=needs,
            available=not reason,
            reason=reason,
            origin="impls",
            limits=("three spatial axes are declined", f"not {HOSTILE}") if reason else (),
        )

    implementations = (
        card("oracle", "oracle"),
        card("eager", "reference"),
        card("by_taps", "optimized"),
        card("compiled", "optimized"),
        card(BREAKOUT, "optimized"),
        card("triton", "optimized", "no CUDA device"),
    )
    return Run(
        id=run_id,
        started="2026-11-21T09:30:00+00:00",
        commit="3f2c9a41d07be5512c0f6e83b1a4d9970e2f5c18",
        dirty="91ac0be2d4f7",
        machine=Machine(
            system="Linux 6.8.0 x86_64",
            processor="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            cores=2,
            memory_bytes=8 * 2**30,
            gpu="",
            gpu_memory_bytes=0,
            driver="",
            flags={"cudnn.allow_tf32": "True", "mkldnn": "True"},
        ),
        versions={"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        argv=("python3", "-m", "harness", "bench", "--plugin", "my plug-in.py"),
        seed=0,
        device="cpu",
        threads=1,
        processes=processes,
        blocks=blocks,
        catalogue=tuple(
            VariantCard(
                name=name,
                equation="y = conv(x*m, w) * win / coverage + b   where coverage > 0\nm' = coverage > 0",
                source="Liu et al. 2018, eq. (1)",
                traits=("linear_in_signal", "takes_mask", "batch_independent"),
                baseline="eager",
                domain="1, 2, 3 spatial axes; odd kernels",
                implementations=implementations,
            )
            for name in names
        ),
        laws=LAWS,
        notes=("No CUDA device: CPU only.", f"plug-in {BREAKOUT} left out: ImportError"),
        settings={"order": "random"},
    )


def _verdicts(run_id: str, names: list[str], contenders: dict[str, float]) -> list[Verdict]:
    rows = []
    for v, variant in enumerate(names):
        for i, law in enumerate(LAWS):
            for name in contenders:
                status, case, detail, replay = Outcome.HOLDS, "", "", ""
                if (v, i, name) == (1, 1, "by_taps"):
                    status, detail = Outcome.REFUTED, DETAIL
                    case = "n1 c1>1 i3x3 k3x3 s1x1 p1x1 d1x1 g1 float32 contiguous exact seed0"
                    replay = f"python3 -m harness check 'masked/by_taps/G2 {case}'"
                elif (v, i, name) == (0, 3, "compiled"):
                    status, detail = Outcome.UNSUPPORTED, "compiled declines NaN inputs"
                elif (v, i, name) == (2, 3, BREAKOUT):
                    status, detail = Outcome.CRASHED, f"{HOSTILE}\n{BREAKOUT}"
                elif (v, i, name) == (0, 2, "by_taps"):
                    status, detail = Outcome.MISTRUSTED, "71 % of the expected values are zero"
                rows.append(
                    Verdict(
                        run_id=run_id,
                        law=law.id,
                        law_name=law.name,
                        variant=variant,
                        implementation=name,
                        status=status,
                        cases=40 + i,
                        case=case,
                        detail=detail,
                        replay=replay,
                    )
                )
    return rows


class Structure(HTMLParser):
    """What a browser would build: tags, ids, links, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag holds."""
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        """Keep the text of scripts apart from that of the page."""
        (self.scripts if self.tags[-1:] == ["script"] else self.words).append(data)

    @property
    def text(self) -> str:
        """All words of the page."""
        return "".join(self.words)


def carried(page: str) -> dict[str, Any]:
    """Return what the page carries for its scripts."""
    match = re.search(r'<script type="text/plain" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    loaded: dict[str, Any] = unpacked(match[1])
    return loaded
