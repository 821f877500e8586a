"""Autoencoders and a text encoder, tiny and random, saved as real ones are."""

from pathlib import Path

import torch

WAN = {
    "base_dim": 3,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [0.5, 2.0, 1.5, 1.0],
}
WAN22 = WAN | {
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "decoder_base_dim": 8,
}
FAR_DC = {
    "in_channels": 3,
    "latent_channels": 8,
    "attention_head_dim": 32,
    "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [8, 16, 32],
    "decoder_block_out_channels": [8, 16, 32],
    "encoder_layers_per_block": [0, 2, 1],
    "decoder_layers_per_block": [0, 1, 2],
    "encoder_qkv_multiscales": [[], [], []],
    "decoder_qkv_multiscales": [[], [], []],
    "decoder_norm_types": ["batch_norm", "batch_norm", "rms_norm"],
    "decoder_act_fns": ["relu", "relu", "silu"],
    "scaling_factor": 0.2889,
}
WORDS = "a b c red green ball cat runs on the lawn , . é « » ；".split()


def wan(**changes):
    """A Wan 2.1 VAE, 8 pixels and 4 frames to a latent; WAN22 makes one of 2.2's kind."""
    from diffusers import AutoencoderKLWan

    return _random(AutoencoderKLWan.from_config(WAN | changes), 0)


def dc(**changes):
    """An autoencoder of FAR's pattern, 4 pixels to a latent, with batch statistics that are not trivial."""
    from diffusers import AutoencoderDC

    network = _random(AutoencoderDC.from_config(FAR_DC | changes), 1)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return network


def _random(network, seed: int):
    torch.manual_seed(seed)
    for parameter in network.parameters():
        spread = 0.5 if parameter.ndim < 2 else 1.2 / parameter[0].numel() ** 0.5
        torch.nn.init.normal_(parameter.data, std=spread)
    return network.eval().requires_grad_(False)


def video(frames: int, height: int = 16, width: int = 24, batch: int = 1, seed: int = 2) -> torch.Tensor:
    """Random pixels in [-1, 1]."""
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def text_encoder():
    """A UMT5 encoder of width 16."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(3)
    config = UMT5Config(vocab_size=len(WORDS) + 3, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
    return UMT5EncoderModel(config).eval().requires_grad_(False)


def tokenizer():
    """A tokenizer of whole words that ends each prompt as T5's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def save_pipeline(folder: Path, vae=None) -> Path:
    """A pipeline's vae/, text_encoder/ and tokenizer/ in diffusers' layout."""
    (vae or wan()).save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    return folder
