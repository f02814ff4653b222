"""Reads a safetensors file with nothing but Python's standard library: python3 plain.py FILE OUT.json"""
import json
import struct
import sys

data = open(sys.argv[1], "rb").read()
(size,) = struct.unpack("<Q", data[:8])
header = json.loads(data[8:8 + size])
out = {}
for name, entry in header.items():
    if name != "__metadata__":
        start, end = (8 + size + at for at in entry["data_offsets"])
        code = {"F32": "f", "I64": "q"}[entry["dtype"]]
        values = struct.unpack("<%d%s" % ((end - start) // struct.calcsize(code), code), data[start:end])
        out[name] = {"Shape": entry["shape"], "Values": values}
json.dump(out, open(sys.argv[2], "w"))
