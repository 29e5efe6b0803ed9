"""The three configurations of the paper's Table 1: what a GPU computes, holds and sends in one engine step."""

from __future__ import annotations

from dataclasses import dataclass

ELEMENT_BYTES = 2  # bf16, of weights, activations and KV
MEMORY_SHARE = 0.9  # of the GPU's memory that the engine may use: vLLM's default
#: What is left of that share beside weights and KV (activations, logits, graphs): what makes the 8B model's 420,000
#: tokens, midway between the 410,000 and 430,000 that engines report.
RESERVED_BYTES = 5.47e9


@dataclass(frozen=True)
class Gpu:
    """A GPU's datasheet. memory_bytes: what CUDA reports. system: its name in the kernel tables."""

    name: str
    system: str
    memory_bytes: float
    peak_flop_per_s: float  # dense bf16
    peak_bytes_per_s: float


A100 = Gpu("A100-80GB SXM", "a100_sxm", 79.25 * 2**30, 312e12, 2.04e12)
H100 = Gpu("H100-80GB SXM", "h100_sxm", 79.11 * 2**30, 989e12, 3.35e12)


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder, split over `gpus` by tensors. inner: width of the gated MLP; parameters: all weights."""

    name: str
    gpu: Gpu
    gpus: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    parameters: float
    head_size: int = 128

    @property
    def hardware(self) -> str:
        """As cards name it."""
        return f"{self.gpu.name}, TP{self.gpus}"

    @property
    def own_heads(self) -> tuple[int, int]:
        """Query and KV heads of one GPU."""
        return self.heads // self.gpus, self.kv_heads // self.gpus

    @property
    def gemms(self) -> tuple[tuple[int, int], ...]:
        """(n, k) of a layer's four matrix products on one GPU: QKV, output, gate and up, down."""
        heads, kv_heads = self.own_heads
        return (
            ((heads + 2 * kv_heads) * self.head_size, self.hidden),
            (self.hidden, heads * self.head_size),
            (2 * self.inner // self.gpus, self.hidden),
            (self.hidden, self.inner // self.gpus),
        )

    @property
    def linear_parameters(self) -> float:
        """Weights of all layers' matrix products, over all GPUs."""
        return float(self.layers * self.gpus * sum(n * k for n, k in self.gemms))

    @property
    def kv_bytes_per_token(self) -> int:
        """Of one GPU."""
        return 2 * self.layers * self.own_heads[1] * self.head_size * ELEMENT_BYTES

    @property
    def kv_tokens(self) -> int:
        """KV tokens of a replica, to 5,000: the share of memory without weights and RESERVED_BYTES."""
        weights = ELEMENT_BYTES * self.parameters / self.gpus
        free = MEMORY_SHARE * self.gpu.memory_bytes - weights - RESERVED_BYTES
        return round(free / self.kv_bytes_per_token / 5000) * 5000

    @property
    def kv_arithmetic(self) -> str:
        """How kv_tokens comes about, for the card."""
        weights = ELEMENT_BYTES * self.parameters / self.gpus
        return (
            f"kv_tokens: ({MEMORY_SHARE:g} x {self.gpu.memory_bytes / 1e9:.1f} GB - {weights / 1e9:.1f} GB of weights "
            f"- {RESERVED_BYTES / 1e9:.1f} GB for the rest) / {self.kv_bytes_per_token / 1024:g} KiB per token and GPU"
        )


LLAMA3_8B = ModelShape("Llama-3-8B bf16", A100, 1, 32, 4096, 32, 8, 14336, 128256, 8.03e9)
QWEN_7B = ModelShape("Qwen-7B bf16", A100, 2, 32, 4096, 32, 32, 11008, 151936, 7.72e9)
LLAMA3_70B = ModelShape("Llama-3-70B bf16", H100, 4, 80, 8192, 64, 8, 28672, 128256, 70.55e9)
