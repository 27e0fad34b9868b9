"""The block formats of GGUF with ggml's own encoders and decoders: writes packed.safetensors.

llama-cpp-python 0.3.36, numpy 2.4.6, safetensors 0.8.0. Run from anywhere: python packed.py
Deterministic: the same versions write the same bytes.

x              [rows, 512]: random numbers, adversarial ones, weights of assets/tiny-llama
importance     [512], of the columns
FORMAT.bytes   of every row, by `ggml_quantize_chunk`, which is what llama-quantize calls
FORMAT.weighted  the same with the importance of columns
FORMAT.random  [3, bytes of 256 numbers], any bytes that decode to finite numbers
FORMAT.numbers  [3, 256], of FORMAT.random, by `dequantize_row_*`
"""

import ctypes
import importlib.metadata
import json
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

for package, pinned in {"llama-cpp-python": "0.3.36", "numpy": "2.4.6", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package)
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

here = Path(__file__).resolve().parent
distribution = importlib.metadata.distribution("llama-cpp-python")
ggml = ctypes.CDLL(str(distribution.locate_file("llama_cpp/lib/libggml-base.so")))
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t

# Name: ggml's type, its name in ggml, numbers and bytes of a block, the places of 16-bit floats.
FORMATS = {
    "Q4_0": (2, "q4_0", 32, 18, [0]),
    "Q4_1": (3, "q4_1", 32, 20, [0, 2]),
    "Q5_0": (6, "q5_0", 32, 22, [0]),
    "Q5_1": (7, "q5_1", 32, 24, [0, 2]),
    "Q8_0": (8, "q8_0", 32, 34, [0]),
    "Q2_K": (10, "q2_K", 256, 84, [80, 82]),
    "Q3_K": (11, "q3_K", 256, 110, [108]),
    "Q4_K": (12, "q4_K", 256, 144, [0, 2]),
    "Q5_K": (13, "q5_K", 256, 176, [0, 2]),
    "Q6_K": (14, "q6_K", 256, 210, [208]),
    "IQ4_NL": (20, "iq4_nl", 32, 18, [0]),
}
WIDTH = 512


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def quantize(format, x, importance=None):
    kind, _, block, size, _ = FORMATS[format]
    rows, width = x.shape
    out = np.zeros((rows, width // block * size), np.uint8)
    written = ggml.ggml_quantize_chunk(
        kind, pointer(x), pointer(out), ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(width),
        None if importance is None else pointer(importance),
    )
    assert written == out.size
    return out


def dequantize(format, data, numbers):
    out = np.zeros((len(data), numbers), np.float32)
    function = getattr(ggml, f"dequantize_row_{FORMATS[format][1]}")
    for row, to in zip(data, out):
        function(pointer(row), pointer(to), ctypes.c_int64(numbers))
    return out


def weights(name, rows):
    """Rows of a tensor of assets/tiny-llama, whose type is f16."""
    path = here.parents[3] / "assets/tiny-llama/model.safetensors"
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
        assert entry["dtype"] == "F16" and entry["shape"][1] == WIDTH, entry
        file.seek(8 + length + entry["data_offsets"][0])
        data = np.frombuffer(file.read(rows * WIDTH * 2), np.float16)
    return data.reshape(rows, WIDTH).astype(np.float32)


generator = np.random.default_rng(17)
normal = lambda: generator.standard_normal(WIDTH).astype(np.float32)
outlier = np.zeros(WIDTH, np.float32)
outlier[300] = 1.0
hidden_outlier = 0.01 * normal()
hidden_outlier[77] = -100.0
x = np.stack([
    0.02 * normal(),
    0.02 * normal() ** 3,
    np.zeros(WIDTH, np.float32),
    outlier,
    np.float32(1e-40) * normal(),  # subnormal
    np.float32(1e-9) * normal(),  # below the least scale of 16 bits
    np.float32(1e-5) * normal(),  # subnormal scales
    0.5 + 0.5 * np.abs(normal()),
    -0.5 - 0.5 * np.abs(normal()),
    np.full(WIDTH, 0.3, np.float32),
    np.float32(1e3) * normal(),
    hidden_outlier,
    np.round(4 * normal()) / 8,  # ties
    np.where(generator.random(WIDTH) < 0.5, np.float32(-1), np.float32(1)),
    *weights("model.layers.0.mlp.down_proj.weight", 2),
]).astype(np.float32)
importance = (generator.standard_normal(WIDTH) ** 2 * 3).astype(np.float32)

tensors = {"x": x, "importance": importance}
for format, (_, _, block, size, halves) in FORMATS.items():
    tensors[f"{format}.bytes"] = quantize(format, x)
    tensors[f"{format}.weighted"] = quantize(format, x, importance)
    random = generator.integers(0, 256, (3, 256 // block, size), np.uint8)
    for half in halves:
        scale = generator.standard_normal((3, 256 // block)).astype(np.float16)
        random[:, :, half:half + 2] = scale[:, :, None].view(np.uint8)
    tensors[f"{format}.random"] = random = random.reshape(3, -1)
    tensors[f"{format}.numbers"] = dequantize(format, random, 256)
    # What the encoder wrote decodes to finite numbers.
    assert np.isfinite(dequantize(format, tensors[f"{format}.bytes"], WIDTH)).all(), format
save_file(tensors, here / "packed.safetensors")
