"""An image in which every part of a pull has something to do, small enough to be pulled hundreds
of times: python3 image.py LAYOUT"""

import os
import random
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
from oci_layout import Layer, Layout  # noqa: E402


def main():
    chance = random.Random(3)
    layout = Layout(sys.argv[1])
    layers = []
    with tempfile.TemporaryDirectory() as work:
        for number in range(7):
            layer = Layer(f"{work}/{number}", ("gzip", "zstd", "plain")[number % 3])
            layer.dir(f"d{number}", 0o2755, uid=number, gid=number)
            for inner in range(60):
                layer.dir(f"d{number}/{inner}")
                for file in range(4):
                    layer.file(f"d{number}/{inner}/{file}", chance.randbytes(chance.randrange(9000)), uid=1000)
            layer.file("big", chance.randbytes((number + 1) << 20))
            # Implied by this layer, stated by none.
            layer.file("implied/deep/file", str(number))
            if number:
                layer.hardlink(f"link{number}", f"d{number - 1}/1/1")
                layer.whiteout(f"d{number - 1}/2")
                layer.file(f"d{number - 1}/new", "new")
            layers.append(layer.close())
        layout.close(layout.image(layers), "faults:1")


main()
