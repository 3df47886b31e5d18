"""Makes the pictures beside it with Pillow 13.0.0: `python make.py ../pillow_blur/input.png`; prints nothing.

Every JPEG file is accompanied by a PNG file of what Pillow decodes it to.
"""
import sys

from PIL import Image

picture = Image.open(sys.argv[1]).convert("RGB").resize((61, 45))
kinds = {
    "subsampled_420": dict(quality=75, subsampling="4:2:0"),
    "subsampled_422": dict(quality=90, subsampling="4:2:2"),
    "subsampled_444": dict(quality=96, subsampling="4:4:4"),
    "coarse": dict(quality=5, subsampling="4:2:0"),
    "progressive": dict(quality=85, progressive=True),
    "restarts": dict(quality=85, restart_marker_blocks=3),
    "grey": dict(quality=85, mode="L"),
    "cmyk": dict(quality=90, mode="CMYK"),
}
for name, options in kinds.items():
    picture.convert(options.pop("mode", "RGB")).save(f"{name}.jpg", **options)
    Image.open(f"{name}.jpg").convert("RGB").save(f"{name}.png")
