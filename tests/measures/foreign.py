"""Models that nobody wrote for this, small and with random weights: what a probe is put on in the tests."""

import os

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")
VOCAB, CONTEXT = 256, 16
TOKENS = torch.randint(0, VOCAB, (8, CONTEXT), generator=torch.Generator().manual_seed(7))


class Encoder(nn.Module):
    """nn.TransformerEncoder on tokens, causal, batch first or not inside."""

    def __init__(self, *, batch_first: bool = True, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(32, VOCAB)
        self.batch_first = batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        if self.batch_first:
            return self.head(self.encoder(x, mask, is_causal=True))
        return self.head(self.encoder(x.transpose(0, 1), mask, is_causal=True).transpose(0, 1))


class Recurrent(nn.Module):
    """One layer applied four times."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for _ in range(4):
            x = self.block(x)
        return self.head(x)


class Lstm(nn.Module):
    """nn.LSTM has no forward derivative on the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 24)
        self.lstm = nn.LSTM(24, 40, batch_first=True)
        self.head = nn.Linear(40, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])


def mlp() -> nn.Module:
    """Tokens in one window, no position left after Flatten."""
    return nn.Sequential(
        nn.Embedding(VOCAB, 8),
        nn.Flatten(),
        nn.Linear(8 * CONTEXT, 64),
        nn.GELU(),
        nn.Linear(64, 64),
        nn.GELU(),
        nn.Linear(64, VOCAB),
    )


def gpt2(attention: str = "sdpa", layers: int = 2) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=layers,
            n_embd=32,
            n_head=4,
            n_positions=64,
            vocab_size=VOCAB,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation=attention,
        )
    )


def llama(attention: str = "sdpa") -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=2,
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            vocab_size=VOCAB,
            attn_implementation=attention,
        )
    )


def bert(attention: str = "sdpa") -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            num_hidden_layers=2,
            hidden_size=32,
            num_attention_heads=4,
            intermediate_size=64,
            vocab_size=VOCAB,
            attn_implementation=attention,
        )
    )


def logits_of(output: object) -> Tensor:
    """The tensor that a loss would be made from."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    return found if found is not None else output.last_hidden_state  # type: ignore[attr-defined]
