"""RoBERTa's tokenizer from a local folder.

Read with the ``tokenizers`` library alone: transformers 5 answers a folder that lacks its files with an empty tokenizer
of five entries, for which every phrase is the same, and says nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

_SPARE_ROWS = 64  # tables of embeddings are sometimes rounded up
START, PAD, END = "<s>", "<pad>", "</s>"


class LaionTokenizer:
    """Byte-level BPE that adds its special tokens itself and cuts at ``max_tokens``."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)

    @classmethod
    def load(cls, folder: Path, max_tokens: int, *, vocabulary: int, pad: int) -> LaionTokenizer:
        """Read ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

        Args:
            folder: where they are.
            max_tokens: special tokens included.
            vocabulary: rows of the text tower's table, which the tokenizer must fill.
            pad: the text tower's id of padding.

        Raises:
            ValueError: the files are missing, or the tokenizer is another than the text tower's.
        """
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = _roberta(folder)
        else:
            raise ValueError(f"{folder} holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt")
        size = tokenizer.get_vocab_size()
        if not vocabulary - _SPARE_ROWS < size <= vocabulary:
            raise ValueError(f"{folder}: the tokenizer has {size} entries, the text tower {vocabulary}")
        if tokenizer.token_to_id(PAD) != pad:
            raise ValueError(f"{folder}: {PAD} must be entry {pad}, is {tokenizer.token_to_id(PAD)}")
        ends = [tokenizer.token_to_id(START), tokenizer.token_to_id(END)]
        if tokenizer.encode("").ids != ends:
            raise ValueError(f"{folder}: an empty text must be {ends} ({START} {END}), is {tokenizer.encode('').ids}")
        return cls(tokenizer, max_tokens)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, L]`` int64 and padding ``[B, L]`` (True where padded), as long as the longest text."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        longest = max(len(row) for row in rows)
        pad = self.tokenizer.token_to_id(PAD)
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(longest)[None] >= lengths[:, None]


def _roberta(folder: Path) -> Tokenizer:
    """What the older files mean, as the release of RoBERTa has it: no space is put before the first word."""
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    if start is None or end is None:
        raise ValueError(f"{folder}: vocab.json lacks {START} or {END}")
    tokenizer.post_processor = processors.RobertaProcessing((END, end), (START, start), add_prefix_space=False)
    return tokenizer
