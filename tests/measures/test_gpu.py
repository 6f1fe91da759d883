"""The GPU's figures, against a double of NVML: the library is foreign, and where the tests run there is no GPU."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from qig_core.measures.gpu import GpuMeter

GIB = 1 << 30
UUID_A = "aaaaaaaa-0000-4000-8000-000000000001"
UUID_B = "bbbbbbbb-0000-4000-8000-000000000002"
SLICE_1 = "11111111-0000-4000-8000-000000000003"
SLICE_2 = "22222222-0000-4000-8000-000000000004"


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 6: "Not Found", 9: "Driver Not Loaded", 15: "GPU is lost"}[value])
        self.value = value


class Device:
    """A GPU or a slice of one. `fails` has errors by function."""

    def __init__(
        self, uuid: str, used: int, total: int, *, util: int = 40, slices: "list[Device] | None" = None
    ) -> None:
        self.uuid, self.used, self.total, self.util, self.slices = uuid, used, total, util, slices
        self.fails: dict[str, int] = {}


class Nvml:
    """As pynvml says it, checked against its source: slices in some of seven places, none busy by its own account."""

    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_GPU_IS_LOST = 3, 13, 15
    NVML_DEVICE_MIG_ENABLE = 1
    NVMLError = NVMLError

    def __init__(self, *gpus: Device, init: int = 0) -> None:
        self.gpus, self.init, self.asked = gpus, init, 0

    def nvmlInit(self) -> None:
        if self.init:
            raise NVMLError(self.init)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self.check(self.gpus[index], "handle")

    def nvmlDeviceGetUUID(self, device: Device) -> str:
        return device.uuid

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:
        self.check(device, "mig")
        return [int(device.slices is not None), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:
        places = [None, *(device.slices or [])]
        if index >= len(places) or (found := places[index]) is None:
            raise NVMLError(6)
        return found

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> Any:
        self.check(device, "memory")
        return SimpleNamespace(used=device.used, total=device.total, free=device.total - device.used)

    def nvmlDeviceGetUtilizationRates(self, device: Device) -> Any:
        self.asked += 1
        self.check(device, "util")
        if device.slices is not None or device.uuid.startswith("MIG-"):
            raise NVMLError(3)
        return SimpleNamespace(gpu=device.util, memory=0)

    def check(self, device: Device, function: str) -> Device:
        if function in device.fails:
            raise NVMLError(device.fails[function])
        return device


def torch_on(uuid: str | None, index: int = 0, *, used: bool = True) -> Any:
    """What the meter asks torch for."""
    properties = SimpleNamespace() if uuid is None else SimpleNamespace(uuid=uuid)
    cuda = SimpleNamespace(
        is_initialized=lambda: used, current_device=lambda: index, get_device_properties=lambda _: properties
    )
    return SimpleNamespace(cuda=cuda)


def two_gpus() -> tuple[Device, Device]:
    first, second = Device(f"GPU-{UUID_A}", 20 * GIB, 80 * GIB), Device(f"GPU-{UUID_B}", 60 * GIB, 80 * GIB, util=90)
    first.fails = second.fails = {"mig": 3}  # a card that knows no MIG
    return first, second


def divided() -> Device:
    slices = [Device(f"MIG-{SLICE_1}", 2 * GIB, 10 * GIB), Device(f"MIG-{SLICE_2}", 15 * GIB, 20 * GIB)]
    return Device(f"GPU-{UUID_A}", 17 * GIB, 80 * GIB, slices=slices)


def meter(torch: Any, nvml: Nvml, **environment: str) -> GpuMeter:
    return GpuMeter(torch=torch, nvml=nvml, environment=environment)


def test_here_nothing_is_recorded_and_the_reason_says_why() -> None:
    gpu = GpuMeter()
    assert gpu.metrics() == {}
    assert gpu.reason == "torch of this process uses no GPU"
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        gpu = GpuMeter(torch=torch_on(UUID_A))
        assert gpu.metrics() == {}
        assert gpu.reason in ("NVML: NVML Shared Library Not Found", "NVML: Driver Not Loaded")


def test_the_real_library_has_what_the_double_has() -> None:
    pynvml = pytest.importorskip("pynvml")
    constants = [name for name in vars(Nvml) if name.startswith("NVML_")]
    assert len(constants) == 4
    assert [getattr(pynvml, name) for name in constants] == [getattr(Nvml, name) for name in constants]
    assert all(callable(getattr(pynvml, name)) for name in vars(Nvml) if name.startswith("nvml"))


def test_no_torch_and_no_nvml_is_imported_where_none_is_in_use() -> None:
    code = (
        "import sys; from qig_core.measures.gpu import GpuMeter; g = GpuMeter(); print(g.metrics(), g.reason);"
        "print({'torch', 'pynvml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["{} torch of this process uses no GPU", "set()"]


def test_the_gpu_that_torch_uses_is_measured_and_not_its_neighbour() -> None:
    gpu = meter(torch_on(UUID_B), Nvml(*two_gpus()))
    assert gpu.metrics() == {"gpu_util_pct": 90.0, "gpu_mem_bytes": 60.0 * GIB, "gpu_mem_pct": 75.0}
    assert gpu.reason == ""


def test_the_gpu_of_a_process_that_does_not_use_it_is_not_its_figure() -> None:
    torch = torch_on(UUID_A, used=False)
    gpu = meter(torch, Nvml(*two_gpus()))
    assert gpu.metrics() == {}
    torch.cuda.is_initialized = lambda: True
    assert gpu.metrics()["gpu_mem_pct"] == 25.0


@pytest.mark.parametrize(
    ("environment", "index", "percent"),
    [
        ({"CUDA_VISIBLE_DEVICES": f"GPU-{UUID_B}"}, 0, 75.0),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb, GPU-aaaa"}, 1, 25.0),
        ({"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0, 75.0),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1, 75.0),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, 0, None),  # CUDA's 1 may be NVML's 0
        ({"CUDA_VISIBLE_DEVICES": "7", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0, None),
        ({"CUDA_VISIBLE_DEVICES": "GPU-"}, 0, None),  # both begin so
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, None),
    ],
)
def test_without_a_uuid_of_torch_the_environment_says_which(
    environment: dict[str, str], index: int, percent: float | None
) -> None:
    gpu = meter(torch_on(None, index), Nvml(*two_gpus()), **environment)
    assert gpu.metrics().get("gpu_mem_pct") == percent
    assert bool(gpu.reason) == (percent is None)


def test_one_gpu_needs_no_order() -> None:
    assert meter(torch_on(None), Nvml(two_gpus()[0])).metrics()["gpu_mem_pct"] == 25.0


@pytest.mark.parametrize(
    ("uuid", "environment"),
    [
        (SLICE_2, {}),  # CUDA 13
        (UUID_A, {"CUDA_VISIBLE_DEVICES": f"MIG-{SLICE_2}"}),  # CUDA 12
        (None, {"CUDA_VISIBLE_DEVICES": f"MIG-{SLICE_2}"}),
        (None, {"CUDA_VISIBLE_DEVICES": "MIG-2222"}),
    ],
)
def test_a_slice_is_measured_by_its_own_memory_and_has_no_utilisation(
    uuid: str | None, environment: dict[str, str]
) -> None:
    nvml = Nvml(two_gpus()[1], divided())
    gpu = meter(torch_on(uuid), nvml, **environment)
    for _ in range(3):
        assert gpu.metrics() == {"gpu_mem_bytes": 15.0 * GIB, "gpu_mem_pct": 75.0}
        assert gpu.reason == "utilisation: Not Supported"
    assert nvml.asked == 1


def test_where_there_is_one_slice_it_is_that_and_of_several_none_is_guessed() -> None:
    card = divided()
    gpu = meter(torch_on(UUID_A), Nvml(card))
    assert (gpu.metrics(), gpu.reason) == ({}, "which of 2 MIG slices is used is not known")
    card.slices = card.slices[:1] if card.slices else None
    assert meter(torch_on(UUID_A), Nvml(card)).metrics() == {"gpu_mem_bytes": 2.0 * GIB, "gpu_mem_pct": 20.0}
    assert meter(torch_on(None), Nvml(card)).metrics()["gpu_mem_pct"] == 20.0


def test_a_card_of_which_it_is_not_known_whether_it_is_divided_is_not_measured() -> None:
    card = divided()
    card.fails = {"mig": 9}
    gpu = meter(torch_on(UUID_A), Nvml(card))
    assert (gpu.metrics(), gpu.reason) == ({}, "which of 0 MIG slices is used is not known")


def test_a_gpu_that_is_lost_is_absent_from_then_on() -> None:
    card, _ = two_gpus()
    gpu = meter(torch_on(UUID_A), Nvml(card))
    assert gpu.metrics()["gpu_mem_pct"] == 25.0
    card.fails = {"memory": 15}
    assert (gpu.metrics(), gpu.reason) == ({}, "memory: GPU is lost")
    card.fails = {}
    assert (gpu.metrics(), gpu.reason) == ({}, "memory: GPU is lost")


def test_a_neighbour_that_is_lost_does_not_keep_the_own_gpu_from_being_measured() -> None:
    first, second = two_gpus()
    first.fails = {"handle": 15}
    second.fails = {"mig": 3}
    assert meter(torch_on(UUID_B), Nvml(first, second)).metrics()["gpu_mem_pct"] == 75.0


def test_an_error_that_passes_leaves_out_one_figure_once() -> None:
    card, _ = two_gpus()
    gpu = meter(torch_on(UUID_A), Nvml(card))
    assert len(gpu.metrics()) == 3
    card.fails = {"memory": 9}
    assert (gpu.metrics(), gpu.reason) == ({"gpu_util_pct": 40.0}, "memory: Driver Not Loaded")
    card.fails = {}
    assert len(gpu.metrics()) == 3
    assert gpu.reason == ""


def test_a_driver_that_is_not_there_is_told() -> None:
    gpu = meter(torch_on(UUID_A), Nvml(init=9))
    assert (gpu.metrics(), gpu.reason) == ({}, "NVML: Driver Not Loaded")
    unknown = meter(torch_on(UUID_B), Nvml(two_gpus()[0]))
    assert (unknown.metrics(), unknown.reason) == ({}, f"NVML knows no device '{UUID_B}'")
