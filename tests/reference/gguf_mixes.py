"""Whether the tensors of GGUF files are those that llama.cpp's own quantizer makes of an F16 file: same types, same bytes.

Usage: gguf_mixes.py F16.gguf FILE.gguf...
The file's general.file_type says which mix is compared. Needs gguf and llama-cpp-python.
"""
import os
import sys
import tempfile

import gguf
import llama_cpp

source, *files = sys.argv[1:]
for file in files:
    ours = gguf.GGUFReader(file)
    mix = int(ours.get_field("general.file_type").contents())
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "theirs.gguf")
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = mix
        params.nthread = 2
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), params)
        os.dup2(saved, 2)
        assert not failed, file
        theirs = {one.name: one for one in gguf.GGUFReader(target).tensors}
        names, types, data = [], [], []
        for one in ours.tensors:
            other = theirs.pop(one.name)
            if one.tensor_type != other.tensor_type:
                types.append(f"{one.name}: {one.tensor_type.name}, llama.cpp {other.tensor_type.name}")
            elif one.data.tobytes() != other.data.tobytes():
                data.append(one.name)
            names.append(one.name)
        print(f"{os.path.basename(file)}: {len(names)} tensors, {len(types)} other types, {len(data)} other bytes, missing {list(theirs)}")
        for line in types[:5] + data[:5]:
            print("  ", line)
