"""GGUF files."""

import gguf
import numpy as np
import pytest

from perspective.models.weights import read_gguf_once


@pytest.fixture
def gguf_file(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_rope_freq_base(10000.5)
    writer.add_token_list(["", "a", "ü", "日本"])
    writer.add_token_scores([0.0, -1.5, 2.0, 3.25])
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(4, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path):
    reader = gguf.GGUFReader(path)
    (tensor,) = reader.tensors
    return {name: field.contents() for name, field in reader.fields.items()}, tensor.name, tensor.data.tolist()


def test_a_gguf_file_is_read_once_with_the_same_content(gguf_file):
    expected = read(gguf_file)
    assert expected[0]["tokenizer.ggml.tokens"] == ["", "a", "ü", "日本"]
    originals = gguf.GGUFReader, gguf.get_tensor_name_map
    with read_gguf_once():
        assert read(gguf_file) == expected
        assert gguf.GGUFReader(gguf_file) is gguf.GGUFReader(gguf_file)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert names is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    with pytest.raises(ValueError, match="magic"), read_gguf_once():
        gguf_file.write_bytes(b"no such file" * 10)
        gguf.GGUFReader(gguf_file)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == originals
