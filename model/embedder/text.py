"""The text tower: a WordPiece tokenizer of our own and a two-layer transformer that pools to a unit vector.

The shape of Sentence-BERT (arXiv 1908.10084), mean of the tokens, made small: the table of tokens is narrower than the
layers (as in ALBERT, arXiv 1909.11942), since it holds most of the weights. What 8,192 entries cost is written
in docs/embedder.md: rare words in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the tower: entries of the table, its width, width and number of layers, heads, features out."""

    vocabulary: int = 8192
    table_features: int = 128
    features: int = 192
    layers: int = 2
    heads: int = 4
    max_tokens: int = 48
    embedding_features: int = 384


class TextTokenizer:
    """Lower-casing WordPiece that adds its special tokens itself; ``[PAD]`` is entry 0."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocabulary: int, max_tokens: int) -> TextTokenizer:
        """Learn the vocabulary of ``texts``."""
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary, special_tokens=[PAD, UNKNOWN, START, END], show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        ends = [(START, tokenizer.token_to_id(START)), (END, tokenizer.token_to_id(END))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
        return cls(tokenizer, max_tokens)

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> TextTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ValueError: the file is missing.
        """
        if not path.is_file():
            raise ValueError(f"no tokenizer {path}")
        return cls(Tokenizer.from_file(str(path)), max_tokens)

    def save(self, path: Path) -> None:
        """Write a ``tokenizer.json``, truncation included."""
        self.tokenizer.save(str(path))

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode_rows(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text with the special tokens, at most ``max_tokens``, not padded."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, L]`` int64 and padding ``[B, L]`` (True where padded), as long as the longest text."""
        rows = self.encode_rows(texts)
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(longest)[None] >= lengths[:, None]


class TextLayer(nn.Module):
    """Pre-norm self-attention and a GELU network, padding masked.

    Shape:
        ``[B, L, H]``, bias ``[B, 1, 1, L]`` (minus infinity, or nearly, at padding) -> ``[B, L, H]``
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.norm = nn.LayerNorm(features)
        self.widen = nn.Linear(features, 4 * features)
        self.narrow = nn.Linear(4 * features, features)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """One layer."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.project(self.attention_norm(x)).chunk(3, dim=-1)
        )
        # Written out: one softmax over at most 48 tokens, and any exporter knows these four operators.
        scores = torch.matmul(query, key.transpose(-1, -2)) * (query.shape[-1] ** -0.5) + bias
        attended = torch.matmul(torch.softmax(scores, dim=-1), value)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.widen(self.norm(x))))


class TextTower(nn.Module):
    """Token ids to token features and one unit vector.

    Shape:
        ids ``[B, L]`` int64, padding ``[B, L]`` bool (True where padded), L at most ``max_tokens``
        -> tokens ``[B, L, D]``, pooled ``[B, E]`` of unit norm, with D = E
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.table_features)
        self.table_up = nn.Linear(config.table_features, config.features)
        self.positions = nn.Parameter(torch.zeros(config.max_tokens, config.features))
        self.layers = nn.ModuleList(TextLayer(config.features, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.features)
        self.out = nn.Linear(config.features, config.embedding_features)
        nn.init.normal_(self.table.weight, std=0.3)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Embed; tokens at padded positions mean nothing and weigh nothing in the pooled vector."""
        x = self.table_up(self.table(ids)) + self.positions[: ids.shape[1]]
        bias = padding.to(x.dtype)[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        tokens = self.out(self.norm(x))
        visible = (~padding).to(tokens.dtype)[..., None]
        pooled = (tokens * visible).sum(1) / visible.sum(1)
        return tokens, functional.normalize(pooled.float(), dim=-1)
