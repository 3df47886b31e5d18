"""Makes the pictures beside it with Pillow 13.0.0: `python make.py input.png`, an RGB picture; prints nothing."""
import sys

from PIL import Image, ImageFilter

picture = Image.open(sys.argv[1]).convert("RGB")
picture.save("input.png")
for sigma in ("0.1", "0.5", "1.3", "2.0", "7.5"):
    picture.filter(ImageFilter.GaussianBlur(float(sigma))).save(f"sigma_{sigma}.png")
