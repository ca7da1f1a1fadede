"""How many of a recording's sounds are suggested: ``python -m tests.reliability.suggestions --model model/default``.

Mixtures of a list of the pack, through the service's own code, against the vocabulary that ships. A suggestion is right
when it is the label of one of the mixture's clips, so a synonym counts as wrong.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from service.call import Call
from service.loading import load_engine
from service.separation import Separator
from service.settings import Settings
from service.suggest import MOST, Suggester, Suggestion
from service.timings import Timings
from service.vocabulary import SHIPPED, read_vocabulary
from training.dataset import Pack
from training.manifest import read_manifest, read_mixtures
from training.mixing import render

RATE = 32_000


def ask(suggester: Suggester, waveform: np.ndarray) -> list[Suggestion]:
    """Suggestions for a waveform [T], as many as may be asked for."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "mixture.wav"
        soundfile.write(path, waveform, RATE, subtype="FLOAT")
        with path.open("rb") as file:
            return suggester.run(file, (), MOST, Path(name), Call(), Timings()).items


def measure(suggester: Suggester, sounds: Path, mixture_list: str, limit: int) -> dict[str, float]:
    """Recall by rank over the sounds of a list, beside chance, and how far the first five can be believed."""
    pack = Pack(sounds, read_manifest(sounds), RATE, np.zeros(0, np.int16), np.zeros(1, np.int64))
    ranks, said, true = [], [], []
    for line in read_mixtures(sounds / mixture_list)[: limit or None]:
        items = ask(suggester, render(line, pack, RATE)[0])
        phrases = [item.phrase for item in items]
        labels = {source.label for source in line.sources}
        ranks += [phrases.index(label) if label in phrases else MOST for label in labels]
        said += [item.probability for item in items[:5]]
        true += [item.phrase in labels for item in items[:5]]
    found = np.array(ranks)
    figures = {f"recall at {rank}": float((found < rank).mean()) for rank in (1, 3, 5, 10)}
    chance = 5 / len(suggester.phrases)
    return {"sounds": len(found), **figures, "chance at 5": chance, "said": np.mean(said), "true": np.mean(true)}


def main() -> None:
    """Print the figures of each list."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.suggestions", description=__doc__)
    parser.add_argument("--model", type=Path, help="a bundle's folder")
    parser.add_argument("--sounds", type=Path, default=Path("../shared/sounds"), help="the sound pack's folder")
    parser.add_argument("--limit", type=int, default=0, help="the first so many mixtures; 0 for all")
    options = parser.parse_args()
    settings = Settings(**({"model": options.model} if options.model else {}))
    engine = load_engine(settings)
    separator = Separator.of(engine, settings)
    try:
        suggester = Suggester(separator, read_vocabulary(SHIPPED, settings.max_prompt_chars))
        for name in ("mixtures-valid-2.jsonl", "mixtures-valid-3.jsonl"):
            figures = measure(suggester, options.sounds, name, options.limit)
            print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()), flush=True)
    finally:
        separator.close()
        engine.close()


if __name__ == "__main__":
    main()
