import pytest

from lmworks.models.arithmetic import accelerator, peak_flops


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("Tesla T4", "float16", 65e12),
        ("NVIDIA A100-SXM4-40GB", "float32", None),
        ("", "bfloat16", None),
        ("something new", "bfloat16", None),
    ],
)
def test_peaks_are_known_or_not_told(device, precision, expected):
    assert peak_flops(device, precision) == expected


def test_this_machine_tells_its_accelerator():
    assert isinstance(accelerator(), str)
