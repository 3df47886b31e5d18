"""Makes the pictures beside it with Pillow 13.0.0: `python make.py`; prints nothing.

Every TIFF file is accompanied by a PNG file of what Pillow decodes it to. Pillow writes palettes of eight bits only, so
those of fewer bits, and tiles, are put together here by the letter of TIFF 6.0 and read by Pillow.
"""
import struct

from PIL import Image

WIDTH, HEIGHT = 37, 21


def place(x, y, bits):
    return (x * x + 3 * y * x + 5 * y) % (1 << bits)


def color_map(bits):
    """All red values, then all green, then all blue; the low bytes must play no part."""
    n = 1 << bits
    return [(channel * 7919 + k * (65535 // n) * (channel + 1) + 129) % 65536 for channel in range(3) for k in range(n)]


def packed(bits, left, top, width, height):
    """Rows of places, filled up to whole bytes; beyond the picture they are 0."""
    rows = b""
    for y in range(top, top + height):
        text = ""
        for x in range(left, left + width):
            text += format(place(x, y, bits) if x < WIDTH and y < HEIGHT else 0, f"0{bits}b")
        text += "0" * (-len(text) % 8)
        rows += bytes(int(text[k : k + 8], 2) for k in range(0, len(text), 8))
    return rows


def tiff(bits, order, tile=None, rows=8, orientation=None):
    """An uncompressed file; `order` is `<` or `>`."""
    if tile:
        chunks = [packed(bits, x, y, tile, tile) for y in range(0, HEIGHT, tile) for x in range(0, WIDTH, tile)]
        where = [(322, 3, [tile]), (323, 3, [tile])]
        offsets, lengths = 324, 325
    else:
        chunks = [packed(bits, 0, y, WIDTH, min(rows, HEIGHT - y)) for y in range(0, HEIGHT, rows)]
        where = [(278, 3, [rows])]
        offsets, lengths = 273, 279
    data, places = b"", []
    for chunk in chunks:
        places.append(8 + len(data))
        data += chunk + b"\0" * (len(chunk) % 2)
    entries = [(256, 3, [WIDTH]), (257, 3, [HEIGHT]), (258, 3, [bits]), (259, 3, [1]), (262, 3, [3]), (277, 3, [1])]
    entries += [(offsets, 4, places), (lengths, 4, [len(chunk) for chunk in chunks]), (320, 3, color_map(bits))] + where
    entries += [(274, 3, [orientation])] if orientation else []
    directory, at = b"", 8 + len(data)
    for tag, kind, values in sorted(entries):
        value = struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
        if len(value) > 4:
            data, at, value = data + value, at + len(value), struct.pack(order + "I", at)
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, at)
    return start + data + struct.pack(order + "H", len(entries)) + directory + b"\0" * 4


files = {}
for bits in (1, 2, 4, 8):
    files[f"palette_{bits}"] = tiff(bits, "<")
    files[f"palette_{bits}_tiles"] = tiff(bits, ">", tile=16)
files["palette_turned"] = tiff(4, "<", orientation=6)
for name, content in files.items():
    with open(f"{name}.tif", "wb") as file:
        file.write(content)

picture = Image.open("../pillow_blur/input.png").convert("RGB").resize((WIDTH, HEIGHT))
picture.quantize(200).save("palette_lzw.tif", compression="tiff_lzw")
picture.quantize(200).save("palette_deflate.tif", compression="tiff_adobe_deflate")
for orientation in range(1, 9):
    picture.resize((7, 5)).save(f"turned_{orientation}.tif", tiffinfo={274: orientation})
names = list(files) + ["palette_lzw", "palette_deflate"] + [f"turned_{orientation}" for orientation in range(1, 9)]
for name in names:
    Image.open(f"{name}.tif").convert("RGB").save(f"{name}.png")
