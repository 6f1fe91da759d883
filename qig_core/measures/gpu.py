"""How busy and how full the GPU of this process is, through NVML; nothing where that is not known for certain.

Reads counters of the driver: no context is made and no torch is imported, so a process that computes on its processor
stays one. Only the device that the process's own torch uses is measured: the one beside it is another run's.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_Devices = dict[str, Any]
"""Handles by UUID, as NVML spells it: GPU-... or MIG-..."""


class GpuMeter:
    """The figures of torch's current device, as it is when torch is first seen to use one.

    Args:
        torch: stands for the torch module; None looks among the modules that are loaded, at each call.
        nvml: stands for the pynvml module; None imports it once there is a device to look for.
        environment: has CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER.
    """

    def __init__(self, *, torch: Any = None, nvml: Any = None, environment: Mapping[str, str] = os.environ) -> None:
        self._torch = torch
        self._nvml = nvml
        self._environment = environment
        self._sought = False
        self._handle: Any = None
        self._unsupported: dict[str, str] = {}
        """Reasons by figure: what the device was asked for in vain and is not asked for again."""
        self.reason = "torch of this process uses no GPU"
        """Why a figure is absent; empty where none is."""

    def metrics(self) -> dict[str, float]:
        """What is known now; what is not is absent. Raises nothing.

        gpu_util_pct: time in which a kernel ran, of the driver's last sample period (1/6 s to 1 s), percent. MIG
            slices have none.
        gpu_mem_bytes: memory of the device, or of the slice, that is not free, whoever holds it.
        gpu_mem_pct: its share of all memory of the device, or of the slice, percent.

        Source: NVML's nvmlDeviceGetUtilizationRates and nvmlDeviceGetMemoryInfo (version 1: used + free = total).
        """
        if not self._sought:
            self._seek()
        if self._handle is None:
            return {}
        reasons: list[str] = []
        found: dict[str, float] = {}
        memory = self._ask("memory", "nvmlDeviceGetMemoryInfo", reasons)
        if memory is not None and memory.total > 0:
            found["gpu_mem_bytes"] = float(memory.used)
            found["gpu_mem_pct"] = 100.0 * memory.used / memory.total
        rates = self._ask("utilisation", "nvmlDeviceGetUtilizationRates", reasons)
        if rates is not None:
            found["gpu_util_pct"] = float(rates.gpu)
        self.reason = "; ".join(reasons)
        return found

    def _ask(self, what: str, function: str, reasons: list[str]) -> Any:
        """NVML's answer; None where there is none, with the reason."""
        if self._handle is None:  # lost a moment ago
            return None
        if what in self._unsupported:
            reasons.append(self._unsupported[what])
            return None
        nvml = self._nvml
        try:
            return getattr(nvml, function)(self._handle)
        except nvml.NVMLError as error:
            reasons.append(f"{what}: {error}")
            if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
                self._unsupported[what] = reasons[-1]
            elif error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                self._handle = None  # it does not come back to this process
            return None

    def _seek(self) -> None:
        """Find the handle, once torch uses a GPU; what comes of it then is final."""
        torch = self._torch or sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        self._sought = True
        try:
            if self._nvml is None:
                import pynvml

                self._nvml = pynvml
        except ImportError:
            self.reason = "pynvml is not installed; install it with: pip install nvidia-ml-py"
            return
        try:
            self._nvml.nvmlInit()
            index = torch.cuda.current_device()
            uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
            self._handle, self.reason = self._find(index, None if uuid is None else str(uuid))
        except (self._nvml.NVMLError, AttributeError, RuntimeError) as error:  # NVML's, an old module's, CUDA's
            self.reason = f"NVML: {error}"

    def _find(self, index: int, uuid: str | None) -> tuple[Any, str]:
        """The handle of torch's device number `index`; None and why.

        The UUID that CUDA gives for a MIG slice is the slice's own or, from older versions, its GPU's.
        """
        gpus = list(self._gpus())
        slices = {name: self._slices(gpu) for _, name, gpu in gpus}
        usable = {name: gpu for _, name, gpu in gpus if slices[name] is None}
        for each in slices.values():
            usable |= each or {}
        entry = self._visible(index)
        if uuid is not None:
            if (handle := _only(usable, uuid)) is not None:
                return handle, ""
            divided = _only({name: name for name, each in slices.items() if each is not None}, uuid)
        elif entry.isdigit():
            # CUDA counts from the fastest on unless it is told otherwise, NVML by the bus.
            if len(gpus) > 1 and self._environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
                return None, f"device {entry} of CUDA may be another one of NVML; set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            divided = next((name for number, name, _ in gpus if number == int(entry)), None)
            if divided in usable:
                return usable[divided], ""
        else:
            handle = _only(usable, entry)
            return handle, "" if handle is not None else f"NVML knows no device {entry!r}"
        if divided is None:
            return None, f"NVML knows no device {uuid or entry!r}"
        mine = slices[divided] or {}
        handle = next(iter(mine.values())) if len(mine) == 1 else _only(mine, entry)
        return handle, "" if handle is not None else f"which of {len(mine)} MIG slices is used is not known"

    def _visible(self, index: int) -> str:
        """What CUDA_VISIBLE_DEVICES calls torch's device: an index, a UUID or its beginning; empty where nothing."""
        named = self._environment.get("CUDA_VISIBLE_DEVICES")
        entries = [str(index)] * (index + 1) if named is None else [entry.strip() for entry in named.split(",")]
        return entries[index] if index < len(entries) else ""

    def _gpus(self) -> Iterator[tuple[int, str, Any]]:
        """Index, UUID and handle of each that answers."""
        nvml = self._nvml
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                yield number, nvml.nvmlDeviceGetUUID(handle), handle
            except nvml.NVMLError:
                continue

    def _slices(self, gpu: Any) -> _Devices | None:
        """The MIG slices of a GPU; None where it is not divided."""
        nvml = self._nvml
        try:
            if nvml.nvmlDeviceGetMigMode(gpu)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
                return None
            count = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
        except nvml.NVMLError as error:
            # Anything else leaves open whether it is divided: then it is not measured as a whole.
            whole = error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            return None if whole else {}
        found: _Devices = {}
        for number in range(count):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
                found[nvml.nvmlDeviceGetUUID(handle)] = handle
            except nvml.NVMLError:  # NOT_FOUND: no slice in this place
                continue
        return found


def _only(devices: _Devices, uuid: str) -> Any:
    """The one device of that UUID, its beginning (GPU-..., MIG-...), or the UUID without its kind; else None."""
    wanted = uuid.lower()
    named = wanted.startswith(("gpu-", "mig-"))
    found = [
        handle
        for name, handle in devices.items()
        if (name.lower().startswith(wanted) if named else name.lower().partition("-")[2] == wanted)
    ]
    return found[0] if len(found) == 1 else None
