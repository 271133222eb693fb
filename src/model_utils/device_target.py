"""The device of a run."""

import mindspore as ms

from src.errors import InputError


def set_device(device_target: str, device_id: int) -> None:
    """Run graphs on a device.

    Raises:
        InputError: this machine has no such device, or MindSpore can't use it.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    if device_target == "CPU":
        ms.set_device("CPU")
        return
    try:
        count = ms.hal.device_count(device_target) if ms.hal.is_available(device_target) else 0
    except ValueError:  # MindSpore's answer where the device's libraries can't be loaded
        count = 0
    if count <= device_id:
        found = f"this machine has {count} of them" if count else "MindSpore finds none on this machine"
        raise InputError(
            f"device_target {device_target} with device_id {device_id}: {found}; check the driver, or give "
            f"--device_target=CPU"
        )
    ms.set_device(device_target, device_id)
