"""Makes the files beside this script with Python, numpy and torchvision; see README.md.

python make_published.py    # Python 3, numpy, Pillow, torchvision; writes into its own folder
"""
import io, json, os, pickle, struct, tarfile, tempfile
import numpy as np
import torchvision
from torchvision.datasets import CIFAR10, MNIST, STL10

HERE = os.path.dirname(os.path.abspath(__file__))


def noise(n, first=0):
    """The bytes that the tests make by the same formula."""
    k = np.arange(first, first + n, dtype=np.uint64)
    return ((k * np.uint64(2654435761)) >> np.uint64(13)).astype(np.uint8)


def write(name, data):
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(data)


def cifar_batch(protocol):
    data = noise(2 * 3072).reshape(2, 3072)
    batch = {"batch_label": "training batch 1 of 5", "labels": [6, 9], "data": data, "filenames": ["a.png", "b.png"]}
    return pickle.dumps(batch, protocol=protocol)


def pixels(dataset, places):
    return [[i, x, y, list(dataset[i][0].convert("RGB").getpixel((x, y))), int(dataset[i][1])] for i, x, y in places]


def main():
    for protocol in (2, 4):
        write(f"cifar_batch_protocol{protocol}.pickle", cifar_batch(protocol))
    write("cifar_meta_protocol0.pickle", pickle.dumps({"label_names": ["airplane", "automobile", "bird", "cat", "deer",
          "dog", "frog", "horse", "ship", "truck"], "num_vis": 3072, "num_cases_per_batch": 2}, protocol=0))

    for form, name in ((tarfile.PAX_FORMAT, "pax"), (tarfile.GNU_FORMAT, "gnu")):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for member in ("short.txt", "folder/" + "n" * 120 + ".txt", "ü/名.txt"):
                info = tarfile.TarInfo(member)
                info.size = len(member.encode())
                tar.addfile(info, io.BytesIO(member.encode()))
        write(f"names_{name}.tar", out.getvalue())

    golden = {"torchvision": torchvision.__version__}
    places = [(0, 0, 0), (0, 5, 90), (1, 90, 5), (1, 95, 95), (0, 1, 0), (1, 0, 1)]
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.join(root, "stl10_binary")
        os.makedirs(folder)
        noise(2 * 27648).tofile(os.path.join(folder, "train_X.bin"))
        np.array([3, 10], dtype=np.uint8).tofile(os.path.join(folder, "train_y.bin"))
        STL10._check_integrity = lambda self: True
        golden["stl"] = pixels(STL10(root, split="train"), places)
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.join(root, "MNIST", "raw")
        os.makedirs(folder)
        for part in ("train", "t10k"):
            with open(os.path.join(folder, f"{part}-images-idx3-ubyte"), "wb") as f:
                f.write(struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + noise(2 * 784).tobytes())
            with open(os.path.join(folder, f"{part}-labels-idx1-ubyte"), "wb") as f:
                f.write(struct.pack(">4BI2B", 0, 0, 8, 1, 2, 7, 2))
        golden["mnist"] = pixels(MNIST(root, train=True), [(0, 0, 0), (0, 5, 20), (1, 20, 5), (1, 27, 27)])
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.join(root, "cifar-10-batches-py")
        os.makedirs(folder)
        for i in range(1, 6):
            with open(os.path.join(folder, f"data_batch_{i}"), "wb") as f:
                f.write(cifar_batch(2))
        with open(os.path.join(folder, "batches.meta"), "wb") as f:
            f.write(open(os.path.join(HERE, "cifar_meta_protocol0.pickle"), "rb").read())
        CIFAR10._check_integrity = lambda self: True
        import torchvision.datasets.cifar as cifar
        cifar.check_integrity = lambda *a, **k: True
        golden["cifar"] = pixels(CIFAR10(root, train=True), [(0, 0, 0), (0, 5, 20), (1, 20, 5), (9, 31, 31)])
    with open(os.path.join(HERE, "published.json"), "w") as f:
        json.dump(golden, f, indent=1)


main()
