"""The image conditioner: a DINOv2 vision transformer whose patch tokens condition the DiT.

Legend: B batch, L tokens (class token first), C width, D channels of one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.devices import upload
from ultrashape_cli.models.attention import AttentionLayer, Mlp, attention, merge_heads
from ultrashape_cli.models.embeddings import resize_position_embedding
from ultrashape_cli.models.norms import LayerNorm

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
PADDING = -1.0  # every channel of a padding token; also the background of a mask


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionerParams:
    """Sizes of the conditioner; the defaults are DINOv2-large at 1022 pixels."""

    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_ratio: int = 4
    patch_size: int = 14
    position_grid: int = 37
    """patches per side of the learned position embeddings"""
    image_size: int = 1022
    """pixels per side at the input of the transformer"""
    norm_eps: float = 1e-6
    use_class_token: bool = True

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by {self.num_heads} heads")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image size {self.image_size} is not a multiple of patch size {self.patch_size}"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens of an image without a mask."""
        return self.tokens_of(self.image_size) - int(not self.use_class_token)

    def tokens_of(self, side: int) -> int:
        """Return the tokens inside the network of an image of `side` pixels, class token too."""
        return (side // self.patch_size) ** 2 + 1


class _PatchEmbeddings(nn.Module):
    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        size = params.patch_size
        self.projection = nn.Conv2d(3, params.width, kernel_size=size, stride=size)


class _Embeddings(nn.Module):
    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, params.width))
        self.mask_token = nn.Parameter(torch.zeros(1, params.width))  # in the weights, unused
        self.patch_embeddings = _PatchEmbeddings(params)
        positions = 1 + params.position_grid**2
        self.position_embeddings = nn.Parameter(0.02 * torch.randn(1, positions, params.width))

    def forward(self, pixels: Tensor) -> Tensor:  # [B, 3, h, w] -> [B, L, C]
        patches = self.patch_embeddings.projection(pixels)
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], 1)
        return tokens + resize_position_embedding(self.position_embeddings, grid).to(tokens.dtype)


class _QKV(AttentionLayer):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(num_heads)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C] -> [B, L, C]
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        return merge_heads(attention(q, k, v, backend=self.backend))


class _Output(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention = _QKV(width, num_heads)
        self.output = _Output(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output.dense(self.attention(x))


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1.to(x.dtype)


class _Layer(nn.Module):
    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        width = params.width
        self.norm1 = LayerNorm(width, eps=params.norm_eps)
        self.attention = _Attention(width, params.num_heads)
        self.layer_scale1 = _LayerScale(width)
        self.norm2 = LayerNorm(width, eps=params.norm_eps)
        self.mlp = Mlp(width, params.mlp_ratio * width)
        self.layer_scale2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C] -> [B, L, C]
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class _Layers(nn.Module):
    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(params) for _ in range(params.num_layers))


class VisionTransformer(nn.Module):
    """DINOv2 with the key names of transformers 4.37.2."""

    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        self.embeddings = _Embeddings(params)
        self.encoder = _Layers(params)
        self.layernorm = LayerNorm(params.width, eps=params.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:  # [B, 3, h, w] -> [B, L, C]
        """Return the normalised tokens of the last layer, class token first."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layer:
            x = layer(x)
        return self.layernorm(x)


class _ImageEncoder(nn.Module):
    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        self.model = VisionTransformer(params)


class ImageConditioner(nn.Module):
    """An image encoder that returns the tokens of the foreground; built frozen."""

    def __init__(self, params: ConditionerParams) -> None:
        super().__init__()
        self.params = params
        self.main_image_encoder = _ImageEncoder(params)
        self.requires_grad_(False)

    def encode(
        self,
        image: Tensor,  # [B, 3, h, w] in [-1, 1]
        mask: Tensor | None = None,  # [B, 1, h, w] in [-1, 1], background exactly -1
        image_size: int | None = None,
    ) -> tuple[Tensor, list[int]]:  # tokens [B, L, C], valid tokens of each sample
        """Return foreground tokens packed to the left, padded with vectors of -1.

        Without a mask every patch is kept. The class token is always kept. `image_size` replaces
        the model's own, for training on smaller images. A mask may stay on the host: its tokens
        are then counted without waiting for the device.
        """
        params = self.params
        size = image_size or params.image_size
        model = self.main_image_encoder.model
        pixels = _normalise(_fit((image.float() + 1) / 2, size, "bilinear"))
        tokens = model(pixels.to(model.embeddings.cls_token.dtype))
        if mask is None:
            keep = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        else:
            pooled = F.max_pool2d(_fit(mask.float(), size, "nearest"), params.patch_size)
            keep = F.pad(pooled.flatten(1) != PADDING, (1, 0), value=True)
        if not params.use_class_token:
            tokens, keep = tokens[:, 1:], keep[:, 1:]
        return pack_tokens(tokens, keep)

    def unconditional(self, batch: int, num_tokens: int | None = None) -> Tensor:  # [B, L, C]
        """Return the zero context; the DiT takes None for the same result at no cost."""
        count = self.params.num_tokens if num_tokens is None else num_tokens
        like = self.main_image_encoder.model.layernorm.weight
        return like.new_zeros(batch, count, self.params.width)


def pack_tokens(tokens: Tensor, keep: Tensor) -> tuple[Tensor, list[int]]:
    """Move kept tokens of [B, L, C] to the front in order, cut to the longest, pad with -1.

    `keep` [B, L] may be on the host.
    """
    lengths: list[int] = keep.sum(1).tolist()
    longest = max(lengths)
    order = (~keep).long().argsort(dim=1, stable=True)[:, :longest]
    padded = upload(~keep.gather(1, order), tokens.device)
    order = upload(order, tokens.device)
    packed = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1]))
    return packed.masked_fill(padded[..., None], PADDING), lengths


def packed_lengths(tokens: Tensor) -> list[int]:  # [B, L, C] -> B counts
    """Return the valid tokens of each sample: those with any channel other than -1."""
    return (tokens != PADDING).any(-1).sum(1).tolist()


def draw_drops(batch: int, probability: float, generator: torch.Generator) -> Tensor:  # [B] bool
    """Decide which samples of a batch train without condition."""
    return torch.rand(batch, generator=generator) < probability


def drop_condition(tokens: Tensor, dropped: Sequence[bool] | Tensor) -> Tensor:
    """Return tokens [B, L, C] with the rows of dropped samples set to zero."""
    rows = upload(torch.as_tensor(dropped, dtype=torch.bool), tokens.device)
    return tokens.masked_fill(rows[:, None, None], 0.0)


def _fit(x: Tensor, size: int, mode: str) -> Tensor:  # [B, *, h, w] -> [B, *, size, size]
    """Resize the shorter side to `size` and cut the centre."""
    height, width = x.shape[-2:]
    if min(height, width) != size:
        short = min(height, width)
        shape = (size * height // short, size * width // short)
        smooth = mode == "bilinear"
        x = F.interpolate(x, size=shape, mode=mode, **({"antialias": True} if smooth else {}))
    top, left = round((x.shape[-2] - size) / 2), round((x.shape[-1] - size) / 2)
    return x[..., top : top + size, left : left + size]


def _normalise(image: Tensor) -> Tensor:  # [B, 3, h, w] in [0, 1]
    constants = torch.tensor([PIXEL_MEAN, PIXEL_STD], dtype=image.dtype)
    mean, std = upload(constants, image.device)[..., None, None]
    return (image - mean) / std
