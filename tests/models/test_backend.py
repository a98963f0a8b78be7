import pytest

from lmworks.models.arithmetic import accelerator, peak_flops


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H100 NVL", "bfloat16", 836e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA H200 NVL", "bfloat16", 836e12),
        ("NVIDIA GH200 480GB", "bfloat16", 989e12),
        ("NVIDIA H20", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312e12),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312e12),
        ("NVIDIA A100X", "bfloat16", None),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA A10G", "bfloat16", 70e12),
        ("NVIDIA RTX A1000", "bfloat16", None),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("NVIDIA L40", "bfloat16", 181e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L20", "bfloat16", None),
        ("Tesla V100-SXM2-16GB", "float16", 125e12),
        ("Tesla V100-PCIE-16GB", "float16", 112e12),
        ("Tesla V100S-PCIE-32GB", "float16", 130e12),
        ("Tesla T4", "float16", 65e12),
        ("NVIDIA T4G", "float16", 65e12),
        ("NVIDIA T400 4GB", "float16", None),
        ("NVIDIA A100-SXM4-40GB", "float32", None),
        ("", "bfloat16", None),
        ("something new", "bfloat16", None),
    ],
)
def test_peaks_are_known_or_not_told(device, precision, expected):
    assert peak_flops(device, precision) == expected


def test_this_machine_tells_its_accelerator():
    assert isinstance(accelerator(), str)
