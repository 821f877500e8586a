"""The manifest of an invented probe's run as plain values. For tests only."""

MODEL = {"name": "fake", "file": "fake.safetensors", "sha256": "0" * 64, "parameters": 12345}
MODEL |= {"network": "trained", "videos": "tiles", "training": {"steps": 1000}, "assumed": None}
MODEL |= {"latent": False, "sampling": None, "repo": None, "revision": None, "geometry": {}}
SETTINGS = {"clips": 6, "frames": 12, "steps": 10, "context": 3, "seed": 0, "probed_frames": [4, 9]}
SETTINGS |= {"dtype": "float32", "device": "cpu", "quick": False, "guidance": 1.0, "videos": None, "set": {}}
SETTINGS |= {"statistics": ["step_similarity", "frame_attention"], "queries": None}


def probe(model: dict, settings: dict, **changes) -> dict:
    """With these entries of the model and of the settings, and these fields, in place of invented ones."""
    fields = {
        "kind": "probe", "format": 1, "command": "framelens probe --model fake <b>",
        "created": "2000-01-01T00:00:00", "git_commit": "abc", "versions": {"python": "3.11", "torch": "2"},
        "loaded_from": "fake", "model": MODEL | model, "settings": SETTINGS | settings, "sigmas": [1.0, 0.0],
        "sessions": [], "complete": True,
    }  # fmt: skip
    return fields | changes
