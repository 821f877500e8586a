"""A video's latents and back, with the VAE of a diffusion model; diffusers has its network.

    vae = open_vae("pipeline/", device="cuda")
    latents = vae.encode(video)              # [b f c h w], pixels in [-1, 1]; latents as the model takes them
    for pixels in vae.stream(latents):       # the pixel frames of each latent frame in turn
        ...

Encoding gives the mean of the posterior. Calls share no state, and only the activations of one latent frame
are in memory at a time.
"""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from framelens.models.encoders import dcae
from framelens.models.encoders.component import Part, config_of, part_of
from framelens.models.encoders.latents import Coder, Latents
from framelens.models.loading.checkpoint import check_shapes
from framelens.models.loading.devices import check_device
from framelens.models.loading.files import read_file, read_folder
from framelens.records.extras import extra


class WanLatents(Latents):
    """The VAE of Wan 2.1, and the residual one of Wan 2.2; causal in time, with a cache per convolution.

    Latents are (z - mean) / std, with mean and deviation per channel from the configuration.
    """

    def __init__(self, network: Any, part: Part, device: str, dtype: str):
        super().__init__(network, part, device, dtype)
        config = network.config
        self.channels, self.patch = config.z_dim, config.patch_size
        self.spatial = 2 ** (len(config.dim_mult) - 1) * (self.patch or 1)
        self.temporal = 2 ** sum(map(bool, config.temperal_downsample))
        stated = [len(config.latents_mean), len(config.latents_std)]
        if stated != [self.channels] * 2:
            raise ValueError(
                f"{part.path}: latents_mean, latents_std have {stated} channels, expected {self.channels}"
            )
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(1, 1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )

    def _encoder(self) -> Coder:
        with extra("families"):
            from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        network: Any = self.network
        cache = self._cache(network.encoder)

        def encode(pixels: Tensor) -> Tensor:
            x = rearrange(pixels, "b f c h w -> b c f h w").to(self.dtype)
            x = patchify(x, patch_size=self.patch) if self.patch else x
            moments = network.quant_conv(network.encoder(x, feat_cache=cache, feat_idx=[0]))
            mean = rearrange(moments[:, : self.channels].float(), "b c f h w -> b f c h w")
            return (mean - self.mean) / self.std

        return encode

    def _decoder(self) -> Coder:
        with extra("families"):
            from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        network: Any = self.network
        cache = self._cache(network.decoder)

        def decode(latent: Tensor) -> Tensor:
            z = rearrange(latent * self.std + self.mean, "b f c h w -> b c f h w").to(self.dtype)
            first = all(entry is None for entry in cache)
            x = network.decoder(network.post_quant_conv(z), feat_cache=cache, feat_idx=[0], first_chunk=first)
            x = unpatchify(x, patch_size=self.patch) if self.patch else x
            return rearrange(x.float().clamp(-1, 1), "b c f h w -> b f c h w")

        return decode

    def _cache(self, coder: nn.Module) -> list:
        """An empty entry for the last frames of each causal convolution."""
        with extra("families"):
            from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        return [None] * sum(isinstance(module, WanCausalConv3d) for module in coder.modules())


class ImageLatents(Latents):
    """A deep-compression autoencoder (DC-AE), which encodes each frame separately; latents are scaled."""

    temporal = 1

    def __init__(self, network: Any, part: Part, device: str, dtype: str):
        super().__init__(network, part, device, dtype)
        self.channels = network.config.latent_channels
        self.spatial = 2 ** (len(network.config.encoder_block_out_channels) - 1)
        self.scale = network.config.scaling_factor

    def _encoder(self) -> Coder:
        def encode(pixels: Tensor) -> Tensor:
            latent = self.network.encode(pixels[:, 0].to(self.dtype)).latent  # pyright: ignore[reportCallIssue]
            return latent.float()[:, None] * self.scale

        return encode

    def _decoder(self) -> Coder:
        def decode(latent: Tensor) -> Tensor:
            z = (latent[:, 0] / self.scale).to(self.dtype)
            return self.network.decode(z).sample.float().clamp(-1, 1)[:, None]  # pyright: ignore[reportCallIssue]

        return decode


KINDS: dict[str, type[Latents]] = {"AutoencoderKLWan": WanLatents, "AutoencoderDC": ImageLatents}
"""The supported classes of diffusers."""


def open_vae(name: str, device: str = "cpu", dtype: str = "float32") -> Latents:
    """The VAE of a pipeline or folder in diffusers' layout, of a hub id, or of a file of FAR's DC-AE.

    Raises ValueError or OSError with one line: what was found and what is supported.
    """
    check_device(device, dtype)
    part = part_of(name, "vae")
    if part.path.is_file():
        weights = read_file(part.path)[1]
        kind, config = "AutoencoderDC", _config_of_file(part.path, weights)
    else:
        config = config_of(part.path)
        kind = config.get("_class_name")
        if kind not in KINDS:
            raise ValueError(f"{part.path} is a {kind}; supported are {', '.join(KINDS)}")
        weights = read_folder(part.path)
    network = _build(kind, config, weights, part.path, getattr(torch, dtype)).to(device)
    return KINDS[kind](network.eval().requires_grad_(False), part, device, dtype)


def _config_of_file(path: Path, weights: dict[str, Tensor]) -> dict[str, Any]:
    if dcae.recognises(weights):
        return dcae.far_config(path, weights)
    hint = ""
    if "encoder.conv1.weight" in weights:
        hint = "; it has the names of Wan's own file: give the vae folder of a pipeline in diffusers' layout"
    raise ValueError(f"{path} is not a DC-AE of FAR: it has no encoder.conv_in.conv.weight{hint}")


def _build(
    kind: str, config: dict[str, Any], weights: dict[str, Tensor], path: Path, dtype: torch.dtype
) -> nn.Module:
    with extra("families"):
        import diffusers

    with torch.device("meta"):
        network = getattr(diffusers, kind).from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_shapes(path, {name: tuple(tensor.shape) for name, tensor in weights.items()}, expected)
    cast = {name: x.to(dtype) if x.is_floating_point() else x for name, x in weights.items()}
    network.load_state_dict(cast, assign=True)
    return network
