"""Files that once ended in a crash instead of one of our errors, by fuzz target.

The first byte is the form of the target (see `fuzz.targets`); most were cut down by hand.
"""
CORPUS: dict[str, list[bytes]] = {
    "readers": [
        b"\x00" + b"[" * 100_000,  # nested deeper than Python's stack
        b'\x00{"a": ' + b"1" * 5000 + b"}",  # an integer longer than Python turns into one
        b'\x00{"prompt": "\\ud800", "completion": "c"}',  # half of a surrogate pair
        b'\x00{"prompt": "p", "chosen": null, "rejected": "r"}',
        b'\x00{"prompt": 7, "chosen": "c", "rejected": "r"}',
        b'\x00{"summaries": null, "info": null, "choice": 0}',
        b'\x00{"info": 3, "summaries": [{"text": "a"}, 5], "choice": 1}',
        b'\x00{"prompt": [3], "response": "r", "helpfulness": 1}',
        b'\x00{"prompt": "p", "response": "r", "helpfulness": "much"}',
        b'\x00{"question": [3], "generation": "g", "is_correct": true}',
        b'\x00{"question": {}, "correct": [], "incorrect": 1}',
        b'\x00{"instruction": "i", "conversations": 1, "chosen": 2, "rejected": 3, "system": 4}',
        b"\x00\xff\xfe{}",
        b"\x01" + b"[" * 100_000,
        b"\x01\xff",
        b"\x02a,b\n\"" + b"x" * 200_000 + b'"\n',  # a cell larger than the csv module takes
        b"\x02a\r\rb\x00,c",
        b"\x03PAR1" + b"\x00" * 30 + b"PAR1",
        b"\x04\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff",  # damaged, not truncated
        b"\x04\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b",
        b"\x05\x1f\x8b",
    ],
    "settings": [
        b"\x00\xcc\x00",
        b"\x00" + b"[" * 3000,
        b"\x00optimiser: ${optimiser}\n",
        b"\x00a: &x [*x]\n",
        b"\x00!!python/object/apply:os.system [true]\n",
        b"\x00rounds: ${oc.env:HOME}\n",
        b"\x01sources: {0: 1}\n",
        b"\x00- 1\n",
    ],
    "goals": [
        b"\x01\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'(\n",
        b"\x01\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        + b" " * 12 + b"\n\x80\x04N.",  # a pickle
        b"\x01\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, "
        b"999999999999999), }" + b" " * 50 + b"\n",
        b"\x01PK\x03\x04",
        b"\x00\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
        b"\x00\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        b'\x00\x38\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"goals":"{\\"a\\":3}"}}'
        + b" " * 15,
    ],
    "checkpoints": [
        b"\x00[]",
        b'\x00{"architectures": 3}',
        b'\x00{"model_type": "llama", "eos_token_id": ""}',
        b"\x01" + b'{"a":' * 3000,
        b'\x01{"head": {"kind": "scalar"}, "template": {"prompt": 3}}',
        b"\x02\x80\x04N.",  # a pickle by the name of safetensors
        b"\x03{",
        b'\x03{"model": {"type": "WordLevel", "vocab": {"a": -1}}}',
        b"\x04[]",
        b"\x05\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
    ],
}
