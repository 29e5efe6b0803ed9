"""What a GPU computes, holds and sends in one engine step: the configurations of the paper's Table 1, and others.

Sizes are those of the models' published configurations (config.json on the Hugging Face hub).
"""

from __future__ import annotations

from dataclasses import dataclass

ELEMENT_BYTES = 2  # bf16, of weights, activations and KV
MEMORY_SHARE = 0.9  # of the GPU's memory that the engine may use: vLLM's default
#: What is left of that share beside weights and KV (activations, logits, graphs): what makes the 8B model's 420,000
#: tokens, midway between the 410,000 and 430,000 that engines report.
RESERVED_BYTES = 5.47e9
WINDOWED_REQUESTS, BLOCK_TOKENS = 256, 16  # requests at once for whose windows there is room; vLLM's block of KV


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
H200 = Gpu("H200-141GB SXM", "h200_sxm", 139.81 * 2**30, 989e12, 4.8e12)


@dataclass(frozen=True)
class Experts:
    """A layer's mixture of experts, every one of which is split over the GPUs by tensors.

    count, chosen: all, and those of a token; inner: width of one; shared: width of what every token passes besides, 0
    for none; dense_layers: the first layers, which have an MLP of the model's own width instead. stored: number format,
    as the kernel tables name it, and bytes: of a weight, its scales included.
    """

    count: int
    chosen: int
    inner: int
    stored: str
    bytes: float
    shared: int = 0
    dense_layers: int = 0


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: ranks of query and KV; sizes of a head without and with rotary, and of a value."""

    query_rank: int
    kv_rank: int
    plain: int
    rotary: int
    value: int


@dataclass(frozen=True)
class ModelShape:
    """A decoder, split over `gpus` by tensors. inner: width of the gated MLP; parameters: all weights of a bf16 model.

    window: every second layer attends to no more tokens than that, 0: all attend to all. loaded_bytes: weights in the
    memory of all GPUs where they were measured or are no plain sum.
    """

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
    window: int = 0
    experts: Experts | None = None
    latent: Latent | None = None
    loaded_bytes: float | None = None

    @property
    def hardware(self) -> str:
        """As cards name it."""
        return f"{self.gpu.name}, TP{self.gpus}"

    @property
    def own_heads(self) -> tuple[int, int]:
        """Query and KV heads of one GPU."""
        return self.heads // self.gpus, self.kv_heads // self.gpus

    @property
    def attention_gemms(self) -> tuple[tuple[int, int], ...]:
        """(n, k) of a layer's QKV and output products on one GPU."""
        heads, kv_heads = self.own_heads
        return ((heads + 2 * kv_heads) * self.head_size, self.hidden), (self.hidden, heads * self.head_size)

    def mlp_gemms(self, inner: int) -> tuple[tuple[int, int], ...]:
        """(n, k) of gate and up, and of down, of a gated MLP of that width on one GPU."""
        return (2 * inner // self.gpus, self.hidden), (self.hidden, inner // self.gpus)

    @property
    def gemms(self) -> tuple[tuple[int, int], ...]:
        """(n, k) of a dense layer's four matrix products on one GPU: QKV, output, gate and up, down."""
        return (*self.attention_gemms, *self.mlp_gemms(self.inner))

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """(n, k) of all kinds of products of a step that are tabled so: not those in experts, nor latent attention."""
        e, attention = self.experts, () if self.latent else self.attention_gemms
        logits = (self.vocabulary // self.gpus, self.hidden)
        if e is None:
            return (*self.gemms, logits)
        dense = self.mlp_gemms(self.inner) if e.dense_layers else ()
        return (*attention, *dense, *(self.mlp_gemms(e.shared) if e.shared else ()), (e.count, self.hidden), logits)

    @property
    def linear_parameters(self) -> float:
        """Weights of a step's matrix products, over all GPUs; of experts those of one token."""
        return self._weights(1 if self.experts is None else self.experts.chosen)

    @property
    def counted_parameters(self) -> float:
        """All weights, embeddings too, counted from the shape."""
        return self._weights(1 if self.experts is None else self.experts.count) + 2 * self.vocabulary * self.hidden

    def _weights(self, experts: int) -> float:
        """Of all layers' matrices, with so many experts of each mixture."""
        if self.latent is None:
            attention = self.gpus * sum(n * k for n, k in self.attention_gemms)
        else:
            a = self.latent
            inside = a.query_rank + a.kv_rank + a.rotary
            heads = a.query_rank * (a.plain + a.rotary) + a.kv_rank * (a.plain + a.value) + self.hidden * a.value
            attention = self.hidden * inside + self.heads * heads
        mlp, e = 3 * self.hidden * self.inner, self.experts
        if e is None:
            return float(self.layers * (attention + mlp))
        mixture = self.hidden * (3 * (experts * e.inner + e.shared) + e.count)
        return float(self.layers * attention + e.dense_layers * mlp + (self.layers - e.dense_layers) * mixture)

    @property
    def weight_bytes(self) -> float:
        """Of one GPU."""
        whole = ELEMENT_BYTES * self.parameters if self.loaded_bytes is None else self.loaded_bytes
        return whole / self.gpus

    @property
    def kv_bytes_per_token(self) -> int:
        """Of one GPU, in the layers that keep all tokens. Latent KV is the same for all heads: every GPU has it all."""
        if self.latent is not None:
            return self.layers * (self.latent.kv_rank + self.latent.rotary) * ELEMENT_BYTES
        layers = self.layers // 2 if self.window else self.layers
        return 2 * layers * self.own_heads[1] * self.head_size * ELEMENT_BYTES

    @property
    def window_bytes(self) -> int:
        """Of one GPU, what the layers with a window keep of WINDOWED_REQUESTS requests: the window, in whole blocks."""
        blocks = -(-self.window // BLOCK_TOKENS) + 1
        return WINDOWED_REQUESTS * blocks * BLOCK_TOKENS * self.kv_bytes_per_token if self.window else 0

    @property
    def kv_tokens(self) -> int:
        """KV tokens of a replica, to 5,000: the share of memory without weights, windows and RESERVED_BYTES."""
        free = MEMORY_SHARE * self.gpu.memory_bytes - self.weight_bytes - RESERVED_BYTES - self.window_bytes
        return round(free / self.kv_bytes_per_token / 5000) * 5000

    @property
    def kv_arithmetic(self) -> str:
        """How kv_tokens comes about, for the card."""
        kept = f" - {self.window_bytes / 1e9:.1f} GB for {WINDOWED_REQUESTS} requests' windows"
        windows = kept if self.window else ""
        return (
            f"kv_tokens: ({MEMORY_SHARE:g} x {self.gpu.memory_bytes / 1e9:.1f} GB - {self.weight_bytes / 1e9:.1f} GB "
            f"of weights - {RESERVED_BYTES / 1e9:.1f} GB for the rest{windows}) / "
            f"{self.kv_bytes_per_token / 1024:g} KiB per token and GPU"
        )


LLAMA3_8B = ModelShape("Llama-3-8B bf16", A100, 1, 32, 4096, 32, 8, 14336, 128256, 8.03e9)
QWEN_7B = ModelShape("Qwen-7B bf16", A100, 2, 32, 4096, 32, 32, 11008, 151936, 7.72e9)
LLAMA3_70B = ModelShape("Llama-3-70B bf16", H100, 4, 80, 8192, 64, 8, 28672, 128256, 70.55e9)
QWEN3_32B = ModelShape("Qwen3-32B bf16", H100, 2, 64, 5120, 64, 8, 25600, 151936, 32.76e9)
#: No card is made of it: its steps were measured in vLLM (see `vllm_steps`).
QWEN3_8B = ModelShape("Qwen3-8B bf16", H100, 1, 36, 4096, 32, 8, 12288, 151936, 8.19e9)
#: 64.38 GiB: what vLLM 0.14.1 says it loads on an H100 (github.com/vllm-project/vllm/issues/33155); the checkpoint has
#: 60.8, and the kernels want their weights padded.
GPT_OSS_120B = ModelShape(
    "gpt-oss-120b MXFP4", H100, 2, 36, 2880, 64, 8, 2880, 201088, 116.8e9,
    head_size=64, window=128, experts=Experts(128, 4, 2880, "w4a16_mxfp4", 4.25 / 8), loaded_bytes=64.38 * 2**30,
)  # fmt: skip
#: All in FP8, a byte each, but embeddings, logits and routers in bf16; the ranks' products and the routers are on every
#: GPU. Without the layer that predicts further tokens.
DEEPSEEK_V3 = ModelShape(
    "DeepSeek-V3 FP8", H200, 8, 61, 7168, 128, 128, 18432, 129280, 671.03e9,
    experts=Experts(256, 8, 2048, "fp8_block", 1.0, shared=2048, dense_layers=3),
    latent=Latent(1536, 512, 128, 64, 128),
    loaded_bytes=671.03e9 + 2 * 129280 * 7168 + 58 * 256 * 7168 + 7 * 7168 * (61 * (1536 + 512 + 64) + 2 * 58 * 256),
)  # fmt: skip
